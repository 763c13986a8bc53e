"""Real model servers on unix sockets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``times`` steps of a slow loop; a request says so how long it takes."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["again"]),
            helper.make_node("MatMul", ["state", "state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [64, 64]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["times"], ["count"]),
            helper.make_node("Loop", ["count", "", "start"], ["end"], body=body),
            helper.make_node("ReduceSum", ["end"], ["sum"], keepdims=0),
        ],
        "graph",
        [helper.make_tensor_value_info("times", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.zeros((64, 64), dtype=np.float32), "start")],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    built.ir_version = 9
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(built, folder / "model.onnx")
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ``python -m tracklayer.serving``; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(model: Path, *arguments: object, version: int = 3) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tracklayer.serving", "--model", str(model)),
                *("--name", "m", "--version", str(version), *map(str, arguments)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def on_socket() -> Callable[[Path], httpx.Client]:
    """A client of a unix socket."""

    def connect(path: Path) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(path))
        return httpx.Client(transport=transport, base_url="http://m", timeout=30)

    return connect
