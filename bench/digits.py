"""The example project, for the figures that need all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx

from bench.measure import NotMeasuredError
from bench.ours import Platform
from tracklayer.settings import resource
from tracklayer.spec import Spec, load

NAME = "digits"


def copy(into: Path) -> Path:
    """The example without its schedule: only we are to start its runs."""
    project = into / NAME
    shutil.copytree(resource(f"examples/{NAME}"), project)
    spec = project / "tracklayer.yaml"
    lines = spec.read_text().splitlines(keepends=True)
    spec.write_text("".join(line for line in lines if not line.startswith("schedule:")))
    return project


def spec_of(project: Path) -> Spec:
    """Its spec."""
    return load(project / "tracklayer.yaml")


def predict(ours: Platform, project: Path) -> None:
    """Ask the endpoint.

    :raises NotMeasuredError: it does not answer as it should.
    """
    url = f"{ours.settings.gateway_url}/{NAME}/v2/models/{NAME}/infer"
    request = json.loads((project / "request.json").read_text())
    answer = httpx.post(url, json=request, timeout=30, trust_env=False)
    if not answer.is_success or not answer.json().get("outputs"):
        raise NotMeasuredError(f"{url} answered {answer.status_code}: {answer.text[:200]}")
