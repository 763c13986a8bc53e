from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tracklayer.errors import ModelError
from tracklayer.serving.formats import load
from tracklayer.serving.model import RequestError, Tensor


def test_the_signature_keeps_the_names_of_free_axes(linear: Path) -> None:
    signature = load(linear).signature
    assert signature.inputs == (Tensor("x", "FP32", ("batch", 4)),)
    assert signature.outputs[0].metadata() == {"name": "y", "datatype": "FP32", "shape": [-1, 3]}


def test_batches_of_any_size_run(linear: Path) -> None:
    model = load(linear)
    for size in (0, 1, 7):
        x = np.ones((size, 4), dtype=np.float32)
        [y] = model.run({"x": x}, ["y"], model.call())
        assert y.shape == (size, 3)
        assert np.allclose(y.sum(axis=1), 1)


def test_a_value_that_the_model_does_not_take_fails_that_request_only(lookup: Path) -> None:
    model = load(lookup)
    with pytest.raises(RequestError, match="out of data bounds") as caught:
        model.run({"i": np.array([99])}, ["row"], model.call())
    assert caught.value.status == 400
    assert "ONNXRuntimeError" not in caught.value.message
    [row] = model.run({"i": np.array([2])}, ["row"], model.call())
    assert row.tolist() == [3.0]


def test_a_run_can_be_ended_from_another_thread(loop: Path) -> None:
    model = load(loop)
    call = model.call()
    threading.Timer(0.2, lambda: setattr(call, "terminate", True)).start()
    start = time.monotonic()
    with pytest.raises(RequestError) as caught:
        model.run({"times": np.array([10**9])}, ["sum"], call)
    assert caught.value.status == 500
    assert time.monotonic() - start < 10


def test_an_output_that_is_no_tensor_is_refused_when_loading(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"output 's' is a seq\(tensor\(float\)\)") as caught:
        load(tmp_path)
    assert "zipmap" in str(caught.value)
