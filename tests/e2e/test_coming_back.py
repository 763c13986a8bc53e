"""The platform is turned off and on again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

SPEC = (
    "name: lasting\ntemplate: serve@1\nsources: {model: path:model.onnx}\ndeploy: {replicas: 2}\n"
)


def running(platform: Platform) -> dict[str, str]:
    """The model servers of the project and their states."""
    found = platform.json("status")["processes"]
    return {p["name"]: p["state"] for p in found if p["name"].startswith("lasting.")}


def test_what_was_served_is_served_again(
    platform: Platform, times: Callable[[float], bytes]
) -> None:
    platform.push("lasting", {"tracklayer.yaml": SPEC, "model.onnx": times(3)})
    run = platform.trigger("lasting")
    platform.wait("lasting", run)
    assert platform.ask("lasting", 10) == ("1", 30)

    both = {"lasting.v1.0": "RUNNING", "lasting.v1.1": "RUNNING"}
    assert running(platform) == both

    platform.tracklayer("down")
    platform.assert_nothing_runs()
    with pytest.raises(httpx.ConnectError):
        platform.ask("lasting", 10)
    assert "tracklayer up" in platform.tracklayer("status", fails=13).stderr

    platform.tracklayer("up")
    platform.until(lambda: running(platform) == both, "the model servers run")
    assert platform.ask("lasting", 10) == ("1", 30)
    assert [found["dag_run_id"] for found in platform.runs("lasting")] == [run]
    assert platform.mlflow.aliased("lasting").version == 1
