"""The example project, for the figures that need all of it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from bench.measure import NotMeasuredError
from bench.ours import Platform
from tracklayer.settings import resource
from tracklayer.spec import load

NAME = "digits"


def folder() -> Path:
    """The example as it ships."""
    return resource(f"examples/{NAME}")


def requirements() -> list[str]:
    """What its script imports."""
    packages = load(folder() / "tracklayer.yaml").packages
    return list(packages.requirements) if packages else []


def predict(ours: Platform) -> None:
    """Ask the endpoint.

    :raises NotMeasuredError: it does not answer as it should.
    """
    url = f"{ours.settings.gateway_url}/{NAME}/v2/models/{NAME}/infer"
    request = json.loads((folder() / "request.json").read_text())
    answer = httpx.post(url, json=request, timeout=30, trust_env=False)
    if not answer.is_success or not answer.json().get("outputs"):
        raise NotMeasuredError(f"{url} answered {answer.status_code}: {answer.text[:200]}")
