"""Which version of a project answers, as the gateway says."""

from __future__ import annotations

import httpx
from pydantic import BaseModel

from tracklayer.platform import gateway
from tracklayer.settings import settings

_TIMEOUT = 2.0  # seconds


class Endpoint(BaseModel):
    """A project's stable address and what answers there.

    :param version: the live model version, that with the greatest share; None if there is none,
        or ``error`` says why it is not known.
    :param weights: version -> share, while more than one is up.
    """

    url: str
    version: int | None
    weights: dict[int, int] = {}
    error: str | None = None


def endpoints(projects: list[str]) -> dict[str, Endpoint]:
    """Project to endpoint, from one question to the gateway."""
    base = settings().gateway_url
    live, problem = {}, None
    try:
        # As the platform itself, which also sees the projects that need a key.
        with gateway().http(timeout=_TIMEOUT) as client:
            live = client.get("/").raise_for_status().json()["projects"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        problem = f"The gateway does not answer at {base}: {error}"
    return {
        name: Endpoint(
            url=f"{base}/{name}",
            version=found.get("version"),
            weights=found.get("weights", {}),
            error=problem,
        )
        for name in projects
        for found in (live.get(name, {}),)
    }
