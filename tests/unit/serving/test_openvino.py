"""OpenVINO models, served."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Never

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tracklayer.errors import ModelError
from tracklayer.serving.formats import load, recognise
from tracklayer.serving.model import RequestError, Tensor

Convert = Callable[..., Path]


@pytest.fixture
def convert(tmp_path: Path, give_up: Callable[[str], Never]) -> Convert:
    """``convert(folder)``: a folder with the IR of the ONNX model in another."""
    try:
        import openvino
    except ImportError:
        give_up("openvino is not installed")

    def run(folder: Path, name: str = "model.xml") -> Path:
        target = tmp_path / "ir"
        target.mkdir(exist_ok=True)
        model = openvino.Core().read_model(folder / "model.onnx")
        openvino.save_model(model, target / name, compress_to_fp16=False)
        return target

    return run


def test_it_is_recognised_and_answers_as_onnxruntime_does(linear: Path, convert: Convert) -> None:
    folder = convert(linear)
    assert recognise(folder).name == "openvino"
    model, reference = load(folder), load(linear)
    assert model.signature.inputs == (Tensor("x", "FP32", ("", 4)),)
    assert model.signature.output_names == ["y"]
    for size in (1, 7):
        x = np.random.default_rng(size).random((size, 4), dtype=np.float32)
        x.setflags(write=False)  # as the arrays are that the server reads from a body
        [y] = model.run({"x": x}, ["y"], model.call())
        [wanted] = reference.run({"x": x}, ["y"], reference.call())
        assert np.allclose(y, wanted, rtol=1e-5, atol=1e-7)


def test_an_answer_stays_what_it_is_when_the_model_answers_again(
    linear: Path, convert: Convert
) -> None:
    model = load(convert(linear))
    [first] = model.run({"x": np.eye(4, dtype=np.float32)}, ["y"], model.call())
    kept = first.copy()
    for _ in range(4):
        model.run({"x": np.zeros((4, 4), np.float32)}, ["y"], model.call())
    assert (first == kept).all()


def test_many_threads_get_the_answers_to_their_own_requests(linear: Path, convert: Convert) -> None:
    model = load(convert(linear))
    rows = np.random.default_rng(0).random((200, 1, 4), dtype=np.float32)

    def ask(x: Any) -> Any:
        return model.run({"x": x}, ["y"], model.call())[0]

    alone = [ask(x) for x in rows]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, rows))
    assert np.array_equal(alone, together)


def test_a_request_that_fails_fails_alone(linear: Path, convert: Convert) -> None:
    model = load(convert(linear))
    with pytest.raises(RequestError) as caught:
        model.run({"x": np.zeros((1, 3), np.float32)}, ["y"], model.call())
    assert caught.value.status == 500
    assert "src/" not in caught.value.message
    [y] = model.run({"x": np.zeros((1, 4), np.float32)}, ["y"], model.call())
    assert y.shape == (1, 3)


def test_a_call_that_was_ended_before_it_began_does_not_run(linear: Path, convert: Convert) -> None:
    model = load(convert(linear))
    call = model.call()
    call.terminate = True
    with pytest.raises(RequestError, match="ended"):
        model.run({"x": np.zeros((1, 4), np.float32)}, ["y"], call)
    model.run({"x": np.zeros((1, 4), np.float32)}, ["y"], model.call())


def test_fp32_stays_fp32(tmp_path: Path, convert: Convert) -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy"]
    model = helper.make_model(
        helper.make_graph([node], "g", value[:1], value[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "model.onnx")
    served = load(convert(tmp_path))
    x = np.array([1 + 2**-23, 16777217.0, 1e-30], np.float32)
    [y] = served.run({"x": x}, ["y"], served.call())
    assert (y == x + x).all()


def test_without_its_weights_it_is_refused(linear: Path, convert: Convert) -> None:
    folder = convert(linear)
    (folder / "model.bin").unlink()
    with pytest.raises(ModelError, match=r"without its weights model\.bin"):
        recognise(folder)


def test_a_damaged_one_is_refused(linear: Path, convert: Convert) -> None:
    folder = convert(linear)
    text = (folder / "model.xml").read_text()
    (folder / "model.xml").write_text(text[: len(text) // 2])
    with pytest.raises(ModelError, match=r"model\.xml cannot be loaded"):
        load(folder)


def test_another_xml_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?><nets><net/></nets>')
    (tmp_path / "a.bin").write_text("")
    with pytest.raises(ModelError, match="no known model"):
        recognise(tmp_path)


def test_without_openvino_it_says_what_to_install(
    linear: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = convert(linear)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match="OpenVINO is not installed") as caught:
        load(folder)
    assert caught.value.hint == "pip install 'tracklayer[openvino]'"
