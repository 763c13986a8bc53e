"""The example without training: a model of the hub, from its spec to a live endpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tracklayer.settings import resource

if TYPE_CHECKING:
    from tests.conftest import Hub
    from tests.e2e.conftest import Platform

EXAMPLE = resource("examples/sentences")
REQUEST = EXAMPLE / "request.json"
STEPS = {"provision", "configure", "fetch-model", "register", "deploy", "verify", "release"}


@pytest.fixture(scope="module")
def deployed(platform: Platform, hub_server: Hub) -> Any:
    """A run; what ``run --follow --json`` says of it."""
    platform.tracklayer("push", str(EXAMPLE))
    return platform.json("run", "sentences", "--follow")


def vectors(answer: Any) -> Any:
    [output] = answer["outputs"]
    assert (output["name"], output["datatype"]) == ("embedding", "FP32")
    return np.array(output["data"]).reshape(output["shape"])


def test_a_model_of_the_hub_becomes_an_endpoint(platform: Platform, deployed: Any) -> None:
    assert deployed["state"] == "success"
    states = {step["step"]: step["state"] for step in deployed["steps"]}
    assert states == dict.fromkeys(STEPS, "success")
    found = vectors(platform.json("predict", "sentences", str(REQUEST)))
    assert found.shape == (3, 384)
    alike = found @ found.T
    assert np.allclose(alike.diagonal(), 1, atol=1e-5)
    assert alike[0, 1] > 0.4 > 0.2 > max(alike[0, 2], alike[1, 2])
    said = platform.tracklayer("predict", "sentences", str(REQUEST)).stdout
    assert "embedding  FP32 [3, 384]" in said


def test_the_short_form_of_a_request_is_taken(
    platform: Platform, deployed: Any, tmp_path: Any
) -> None:
    [texts] = json.loads(REQUEST.read_text())["inputs"]
    (tmp_path / "short.json").write_text(json.dumps({"inputs": texts["data"]}))
    short = platform.json("predict", "sentences", str(tmp_path / "short.json"))
    found = vectors(platform.json("predict", "sentences", str(REQUEST)))
    assert np.allclose(short["predictions"], found, atol=1e-6)


def test_only_what_serving_needs_was_fetched(
    platform: Platform, hub_server: Hub, deployed: Any
) -> None:
    fetched = platform.record("sentences", deployed["run"])["steps"]["fetch-model"]
    assert fetched["revision"] == "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    paths = {file["path"] for file in fetched["files"]}
    assert {"config.json", "model.safetensors", "1_Pooling/config.json"} <= paths
    assert {path.rpartition(".")[2] for path in paths} == {"json", "safetensors"}
    assert not hub_server.asked("vocab.txt")
