from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from tracklayer.serving import binary
from tracklayer.serving.formats import load
from tracklayer.serving.http import Reply, Service
from tracklayer.serving.model import DATATYPES, RequestError, Tensor
from tracklayer.serving.open_inference import routes

Identity = Callable[[int], Path]

ONE = np.array([[0, 0.5, 1, 2]], dtype=np.float32)


def ask(folder: Path, document: Any, *blobs: bytes, header: bytes | None = None) -> Reply:
    service = Service("m", "3", load(folder))
    handler = routes(service)["/v2/models/m/infer"].infer
    assert handler
    text = orjson.dumps(document)
    headers = {b"inference-header-content-length": header or str(len(text)).encode()}
    return handler(b"".join([text, *blobs]), headers, service.model.call())


def given_(size: object = 16, **changes: Any) -> dict[str, Any]:
    """The input ``x`` of the model ``linear``, as bytes behind the JSON."""
    x = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    return x | changes


def answered(reply: Reply) -> tuple[Any, bytes]:
    length = int(reply.headers["inference-header-content-length"])
    assert reply.content_type == "application/octet-stream"
    return orjson.loads(reply.body[:length]), reply.body[length:]


def test_bytes_and_json_give_the_same(linear: Path) -> None:
    in_json = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ONE.ravel().tolist()}
    expected = orjson.loads(ask(linear, {"inputs": [in_json]}).body)["outputs"]
    reply = ask(linear, {"inputs": [given_()]}, ONE.tobytes())
    assert reply.content_type == "application/json"
    assert orjson.loads(reply.body)["outputs"] == expected
    for wanted in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
    ):
        document, blob = answered(ask(linear, {"inputs": [given_()]} | wanted, ONE.tobytes()))
        [output] = document["outputs"]
        assert output == {
            "name": "y",
            "shape": [1, 3],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 12},
        }
        assert np.frombuffer(blob, np.float32).tolist() == pytest.approx(expected[0]["data"])


def test_bytes_and_json_in_one_request_and_in_one_answer(addition: Path) -> None:
    size = {"binary_data_size": 16}
    inputs = [
        {"name": "a", "shape": [1, 2], "datatype": "FP64", "data": [2, 3]},
        {"name": "b", "shape": [1, 2], "datatype": "FP64", "parameters": size},
    ]
    outputs = [
        {"name": "product", "parameters": {"binary_data": False}},
        {"name": "total"},
    ]
    request = {
        "id": "i",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {"binary_data_output": True},
    }
    document, blob = answered(ask(addition, request, np.array([4.0, 5.0]).tobytes()))
    assert document["id"] == "i"
    assert [output["name"] for output in document["outputs"]] == ["product", "total"]
    assert document["outputs"][0]["data"] == [8, 15]
    assert np.frombuffer(blob, np.float64).tolist() == [6, 8]


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES"}))
def test_every_type_survives_the_way_there_and_back(datatype: str) -> None:
    dtype = DATATYPES[datatype]
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    tensor = Tensor("x", datatype, ("", 2))
    array = binary.decode(tensor, [3, 2], memoryview(values.tobytes()), "x")
    assert array.dtype == dtype
    assert np.array_equal(array, values)
    assert bytes(binary.encode(tensor, array)) == values.tobytes()
    assert bytes(binary.encode(tensor, array.T)) == values.T.tobytes()
    assert bytes(binary.encode(tensor, array[0, 0])) == values[0, 0].tobytes()


@given(st.lists(st.text()))
def test_text_survives(texts: list[str]) -> None:
    tensor = Tensor("x", "BYTES", ("",))
    blob = bytes(binary.encode(tensor, np.array(texts, dtype=object)))
    assert binary.decode(tensor, [len(texts)], memoryview(blob), "x").tolist() == texts


@given(st.binary(max_size=40), st.integers(0, 5))
def test_no_bytes_whatever_break_the_reader_of_text(blob: bytes, count: int) -> None:
    tensor = Tensor("x", "BYTES", ("",))
    with contextlib.suppress(RequestError):
        array = binary.decode(tensor, [count], memoryview(blob), "x")
        assert bytes(binary.encode(tensor, array)) == blob


def test_a_model_may_give_bytes_instead_of_text() -> None:
    array = np.array(["é", b"\xff"], dtype=object)
    expected = struct.pack("<I2sI1s", 2, "é".encode(), 1, b"\xff")
    assert binary.encode(Tensor("x", "BYTES", ("",)), array) == expected


def test_aligned_bytes_are_not_copied() -> None:
    tensor = Tensor("x", "FP32", ("",))
    body = bytearray(np.arange(9, dtype=np.float32).tobytes())
    array = binary.decode(tensor, [8], memoryview(body)[4:], "x")
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    unaligned = binary.decode(tensor, [8], memoryview(bytes(1) + bytes(body))[5:], "x")
    assert unaligned.flags.aligned
    assert unaligned.tolist() == array.tolist() == list(range(1, 9))


def test_text_and_halves_as_bytes(identity: Identity) -> None:
    for element, datatype, blob in (
        (TensorProto.STRING, "BYTES", struct.pack("<I2sI", 2, "é".encode(), 0)),
        (TensorProto.FLOAT16, "FP16", struct.pack("<2e", 0.5, -2)),
    ):
        size = {"binary_data_size": len(blob)}
        request = {
            "inputs": [{"name": "v", "shape": [2], "datatype": datatype, "parameters": size}],
            "parameters": {"binary_data_output": True},
        }
        document, back = answered(ask(identity(element), request, blob))
        assert document["outputs"][0]["parameters"] == size
        assert back == blob


@pytest.mark.parametrize(
    ("request_", "blob", "message"),
    [
        (given_(), b"", r"inputs\[0\] 'x': binary_data_size is 16, but 0 bytes are left"),
        (given_(), bytes(17), "1 bytes after the JSON belong to no input"),
        (given_(15), bytes(15), r"shape \[1, 4\] of FP32 needs 16 bytes, there are 15"),
        (given_(20, shape=[1, 5]), bytes(20), r"shape \[1, 5\] does not fit"),
        (given_(-16), bytes(16), "binary_data_size must be an integer, zero or more"),
        (given_(16.0), bytes(16), "binary_data_size must be an integer"),
        (given_(True), bytes(16), "binary_data_size must be an integer"),
        (given_("16"), bytes(16), "binary_data_size must be an integer"),
        (given_(2**63), bytes(16), "but 16 bytes are left"),
        (given_(shape=[2**62, 4]), bytes(16), "needs 73786976294838206464 bytes"),
        (given_(data=[1, 2, 3, 4]), bytes(16), "either data or binary_data_size, not both"),
        (given_(), struct.pack("<4f", 0, 0, float("nan"), 0), "is NaN or infinite"),
        (given_(datatype="FP64"), bytes(16), "datatype must be 'FP32'"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(
    linear: Path, request_: Any, blob: bytes, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        ask(linear, {"inputs": [request_]}, blob)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"0", "cannot have 0 bytes"),
        (b"-2", "must be the number of bytes"),
        (b"2.0", "must be the number of bytes"),
        (b"x", "must be the number of bytes"),
        ("\u00b2".encode("latin-1"), "must be the number of bytes"),
        (b"9" * 5000, "must be the number of bytes"),
        (b"99999", "cannot have 99999 bytes, the body has"),
        (b"3", "not valid JSON"),
    ],
)
def test_a_wrong_length_of_the_json_is_refused(linear: Path, header: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        ask(linear, {"inputs": [given_()]}, ONE.tobytes(), header=header)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("blob", "count", "message"),
    [
        (b"", 1, "1 elements of BYTES need 4 bytes each"),
        (b"", 2**40, "elements of BYTES need 4 bytes each"),
        (struct.pack("<I", 1), 1, "element 0 has 1 bytes, 0 follow"),
        (struct.pack("<I", 2**32 - 1), 1, "element 0 has 4294967295 bytes"),
        (struct.pack("<I5s", 5, b"abcde"), 2, "end before element 1 of 2"),
        (struct.pack("<I2s", 2, b"\xff\xfe"), 1, "element 0 is not UTF-8"),
        (struct.pack("<II", 0, 0), 1, "4 bytes follow the last of 1"),
    ],
)
def test_text_that_does_not_fit_is_refused(blob: bytes, count: int, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        binary.decode(Tensor("x", "BYTES", ("",)), [count], memoryview(blob), "x")
    assert caught.value.status == 400


def test_a_truth_is_zero_or_one() -> None:
    with pytest.raises(RequestError, match="neither 0 nor 1"):
        binary.decode(Tensor("x", "BOOL", ("",)), [2], memoryview(b"\1\2"), "x")


def test_an_output_that_json_cannot_carry_goes_as_bytes(logarithm: Path) -> None:
    request = {
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}],
        "parameters": {"binary_data_output": True},
    }
    _, blob = answered(ask(logarithm, request))
    assert struct.unpack("<f", blob) == (-np.inf,)
