"""Which version of a project answers, as the gateway says."""

from __future__ import annotations

import httpx
from pydantic import BaseModel

from tracklayer.settings import settings

_TIMEOUT = 2.0  # seconds


class Endpoint(BaseModel):
    """A project's stable address and what answers there.

    :param version: the live model version; None if there is none, or ``error`` says why it is
        not known.
    """

    url: str
    version: int | None
    error: str | None = None


def endpoints(projects: list[str]) -> dict[str, Endpoint]:
    """Project to endpoint, from one question to the gateway."""
    base = settings().gateway_url
    live, problem = {}, None
    try:
        # The gateway is on this machine or in this network: never by way of a proxy.
        with httpx.Client(trust_env=False, timeout=_TIMEOUT) as client:
            answer = client.get(f"{base}/").raise_for_status().json()
            live = {name: route["version"] for name, route in answer["projects"].items()}
    except (httpx.HTTPError, ValueError, KeyError) as error:
        problem = f"The gateway does not answer at {base}: {error}"
    return {
        name: Endpoint(url=f"{base}/{name}", version=live.get(name), error=problem)
        for name in projects
    }
