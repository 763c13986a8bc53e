"""Real, tiny ONNX models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tracklayer.serving.app import Application, Limits
from tracklayer.serving.formats import load
from tracklayer.serving.guard import Guard
from tracklayer.serving.http import Service
from tracklayer.serving.server import Server
from tracklayer.sockets import listen_unix

Save = Callable[..., Path]


def tensor(name: str, element: int, dims: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, dims)


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, Any] | None = None,
    name: str = "model.onnx",
) -> Path:
    initialisers = [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / name)
    return folder


@pytest.fixture
def use(tmp_path: Path) -> Callable[..., None]:
    """``use(folder, test, **limits)`` runs ``test(client, application, service)`` with a client of
    a server in this process, and the model of the folder as version 3 of ``m``."""

    def run(
        folder: Path,
        test: Callable[[httpx.AsyncClient, Application, Service], Awaitable[None]],
        *,
        guard: Guard | None = None,
        **limits: Any,
    ) -> None:
        async def session() -> None:
            service = Service("m", "3", load(folder))
            application = Application([service], Limits(**limits), guard=guard)
            server = Server(application, drain=5)
            serving = asyncio.create_task(server.serve(listen_unix(tmp_path / "s")))
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))
            try:
                async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
                    await test(client, application, service)
            finally:
                server.stop()
                await serving

        asyncio.run(session())

    return run


@pytest.fixture(name="save")
def _save() -> Save:
    """``save(folder, nodes, inputs, outputs, weights)`` makes a model of one's own."""
    return save


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """softmax(x @ W): x is [batch, 4], y is [batch, 3]."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 12
    return save(
        tmp_path / "linear",
        [
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("Softmax", ["z"], ["y"]),
        ],
        [tensor("x", TensorProto.FLOAT, ["batch", 4])],
        [tensor("y", TensorProto.FLOAT, ["batch", 3])],
        {"w": weights},
    )


@pytest.fixture
def identity(tmp_path: Path) -> Callable[[int], Path]:
    """A model that gives back its input ``v`` of any element type as ``w``; shape [n]."""

    def make(element: int) -> Path:
        return save(
            tmp_path / f"identity{element}",
            [helper.make_node("Identity", ["v"], ["w"])],
            [tensor("v", element, ["n"])],
            [tensor("w", element, ["n"])],
        )

    return make


@pytest.fixture
def addition(tmp_path: Path) -> Path:
    """total = a + b and product = a * b; a and b are [batch, 2]."""
    return save(
        tmp_path / "addition",
        [
            helper.make_node("Add", ["a", "b"], ["total"]),
            helper.make_node("Mul", ["a", "b"], ["product"]),
        ],
        [tensor(name, TensorProto.DOUBLE, ["batch", 2]) for name in "ab"],
        [tensor(name, TensorProto.DOUBLE, ["batch", 2]) for name in ("total", "product")],
    )


@pytest.fixture
def lookup(tmp_path: Path) -> Path:
    """The rows of a table of three; an index beyond them fails that request."""
    return save(
        tmp_path / "lookup",
        [helper.make_node("Gather", ["table", "i"], ["row"])],
        [tensor("i", TensorProto.INT64, ["n"])],
        [tensor("row", TensorProto.FLOAT, ["n"])],
        {"table": np.array([1, 2, 3], dtype=np.float32)},
    )


@pytest.fixture
def logarithm(tmp_path: Path) -> Path:
    """log(x): minus infinity at 0."""
    return save(
        tmp_path / "logarithm",
        [helper.make_node("Log", ["x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, [1])],
        [tensor("y", TensorProto.FLOAT, [1])],
    )


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """Counts to the input ``times`` in steps that each take a while."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["again"]),
            helper.make_node("MatMul", ["state", "state"], ["next"]),
        ],
        "body",
        [
            tensor("step", TensorProto.INT64, []),
            tensor("keep", TensorProto.BOOL, []),
            tensor("state", TensorProto.FLOAT, [64, 64]),
        ],
        [tensor("again", TensorProto.BOOL, []), tensor("next", TensorProto.FLOAT, [64, 64])],
    )
    return save(
        tmp_path / "loop",
        [
            helper.make_node("Squeeze", ["times"], ["count"]),
            helper.make_node("Loop", ["count", "", "start"], ["end"], body=body),
            helper.make_node("ReduceSum", ["end"], ["sum"], keepdims=0),
        ],
        [tensor("times", TensorProto.INT64, [1])],
        [tensor("sum", TensorProto.FLOAT, [])],
        {"start": np.zeros((64, 64), dtype=np.float32)},
    )
