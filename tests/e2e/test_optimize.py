"""The example of the digits, served in the fastest form that answers alike."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tracklayer.optimize.candidates import CANDIDATES, REGISTERED
from tracklayer.settings import resource

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Platform

EXAMPLE = resource("examples/digits")
REQUEST = EXAMPLE / "request.json"


@pytest.fixture(scope="module")
def optimised(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of a copy whose script leaves held-out rows; what ``run --follow --json`` says."""
    folder = tmp_path_factory.mktemp("optimised") / "swift"
    shutil.copytree(EXAMPLE, folder)
    spec = (folder / "tracklayer.yaml").read_text()
    spec = spec.replace("name: digits", "name: swift").replace('schedule: "@weekly"\n', "")
    spec = spec.replace("deploy: {replicas: 1}", "deploy: {replicas: 1, optimize: auto}")
    (folder / "tracklayer.yaml").write_text(spec)
    script = (folder / "train.py").read_text()
    saved = "    save(model, test_pixels[:4], options.model_dir)\n"
    assert saved in script
    held_out = (
        "    np.savez(options.model_dir / 'holdout.npz', pixels=test_pixels, label=test_digits)\n"
    )
    (folder / "train.py").write_text(script.replace(saved, saved + held_out))
    platform.tracklayer("push", str(folder))
    return platform.json("run", "swift", "--follow")


def test_the_step_runs_and_its_table_is_in_the_record(platform: Platform, optimised: Any) -> None:
    assert optimised["state"] == "success", optimised
    states = {step["step"]: step["state"] for step in optimised["steps"]}
    assert states["optimize"] == "success"
    found = platform.record("swift", optimised["run"])["steps"]["optimize"]
    rows = {row["name"]: row for row in found["candidates"]}
    assert list(rows) == list(CANDIDATES)
    assert rows[REGISTERED]["allowed"]
    assert rows["onnx-int8-static"]["metric"] == "accuracy"
    [chosen] = [row for row in rows.values() if row["chosen"]]
    assert chosen["name"] == found["chosen"]
    assert chosen["speedup"] >= 1
    log = platform.log_text("swift", optimised["run"], "optimize")
    assert f"* {found['chosen']}" in log
    assert "median ms" in log


def test_the_table_is_in_mlflow(platform: Platform, optimised: Any) -> None:
    (run,) = platform.mlflow.runs_of("swift", optimised["run"])
    table = platform.mlflow.artifact(run, "optimize.json")
    names = [row[table["columns"].index("name")] for row in table["data"]]
    assert names == list(CANDIDATES)
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [
        {"path": "optimize.json", "type": "table"}
    ]
    metrics = platform.mlflow.metrics(run["info"]["run_id"])
    assert metrics[f"optimize/{REGISTERED}/speedup"] == 1
    assert metrics[f"optimize/{REGISTERED}/median_ms"] > 0


def test_the_endpoint_answers_right(platform: Platform, optimised: Any) -> None:
    steps = platform.record("swift", optimised["run"])["steps"]
    assert steps["deploy"]["manifest"] == steps["optimize"]["manifest"]
    answer = platform.json("predict", "swift", str(REQUEST))
    [digits] = [o["data"] for o in answer["outputs"] if o["name"] == "digit"]
    assert digits == [4, 9, 0]
    assert answer["model_version"] == str(steps["register"]["version"])
    assert platform.mlflow.aliased("swift").version == steps["register"]["version"]


WIDE = 1024


def wide(folder: Path) -> None:
    """Four products of wide matrices: in int8 there is a quarter of the weights to be read."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number in range(4):
        matrix = random.normal(0, (2 / WIDE) ** 0.5, (WIDE, WIDE)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"p{number}"]))
        last = "y" if number == 3 else f"r{number}"
        nodes.append(helper.make_node("Relu", [f"p{number}"], [last]))
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDE]) for name in "xy"
    )
    graph = helper.make_graph(nodes, "wide", [x], [y], weights)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx")
    np.savez(folder / "holdout.npz", x=random.random((100, WIDE), np.float32))


def test_a_form_of_the_model_that_is_faster_is_what_answers(
    platform: Platform, tmp_path: Path
) -> None:
    wide(tmp_path / "wide" / "model")
    (tmp_path / "wide" / "tracklayer.yaml").write_text(
        "name: wide\ntemplate: serve-optimised@1\nsources: {model: 'path:model'}\n"
        "deploy: {optimize: {budget: 0.05}}\n"
    )
    (platform.templates / "serve-optimised.v1.yaml").write_text(
        """\
requires: [sources.model]
steps:
  fetch:    {run: fetch, each: sources}
  register: {run: register, after: [fetch]}
  optimize: {run: optimize, when: deploy.optimize, after: [register]}
  deploy:   {run: deploy, after: [optimize]}
  verify:   {run: verify, after: [deploy]}
"""
    )
    platform.tracklayer("push", str(tmp_path / "wide"))
    run = platform.json("run", "wide", "--follow")
    steps = platform.record("wide", run["run"])["steps"]
    found = steps["optimize"]
    assert "int8" in found["chosen"], found["candidates"]
    assert found["manifest"] != steps["register"]["manifest"]
    assert steps["deploy"]["manifest"] == found["manifest"]
    held = np.load(tmp_path / "wide" / "model" / "holdout.npz")["x"][:1]
    request = {"name": "x", "shape": [1, WIDE], "datatype": "FP32", "data": held[0].tolist()}
    (tmp_path / "request.json").write_text(json.dumps({"inputs": [request]}))
    [output] = platform.json("predict", "wide", str(tmp_path / "request.json"))["outputs"]
    import onnxruntime as ort

    session: Any = ort.InferenceSession(tmp_path / "wide" / "model" / "model.onnx")
    wanted = session.run(None, {"x": held})[0][0]
    got = np.array(output["data"])
    assert 0 < np.linalg.norm(got - wanted) / np.linalg.norm(wanted) < 0.1
