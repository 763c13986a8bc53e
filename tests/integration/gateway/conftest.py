"""Real gateways in front of real model servers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tracklayer.gateway import GatewayClient


@dataclass
class Server:
    """A running model server."""

    version: int
    socket: Path
    process: subprocess.Popen[str]


@dataclass
class Gateway:
    """A running gateway and its client."""

    url: str
    process: subprocess.Popen[str]
    client: GatewayClient


Serve = Callable[[int], Server]
Open = Callable[..., Gateway]


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``python -m <module>``; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(module: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
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
def serve(tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]]) -> Serve:
    """Starts a server whose model adds its version to the input ``x``, a [batch, 1]."""
    count = 0

    def begin(version: int) -> Server:
        nonlocal count
        count += 1
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "version"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
            [numpy_helper.from_array(np.array([version], dtype=np.float32), "version")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        folder = tmp_path / f"model{count}"
        folder.mkdir()
        onnx.save(model, folder / "model.onnx")
        socket = tmp_path / f"{count}.sock"
        process = spawn(
            "tracklayer.serving",
            *("--model", folder, "--name", "digits", "--version", version, "--socket", socket),
        )
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()[1]
        return Server(version, socket, process)

    return begin


@pytest.fixture
def gateway(tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]]) -> Open:
    """Starts a gateway on a free port, always with the same routes file and socket."""

    def begin(*arguments: object) -> Gateway:
        admin = tmp_path / "admin.sock"
        process = spawn(
            "tracklayer.gateway",
            *("--port", 0, "--admin", admin, "--routes", tmp_path / "routes.json", *arguments),
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("gateway listening on"), process.communicate()[1]
        return Gateway(line.split()[-1], process, GatewayClient(admin))

    return begin
