from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from onnx import TensorProto

from tracklayer.serving.formats import load
from tracklayer.serving.http import Service
from tracklayer.serving.invocations import routes
from tracklayer.serving.model import RequestError

Identity = Callable[[int], Path]


def invoke(folder: Path, request: object, content_type: bytes = b"application/json") -> Any:
    service = Service("m", "3", load(folder))
    handler = routes(service)["/invocations"].infer
    assert handler
    body = request if isinstance(request, bytes) else orjson.dumps(request)
    reply = handler(body, {b"content-type": content_type}, service.model.call())
    return orjson.loads(reply.body)


def test_a_column_of_csv_for_a_model_with_one_axis(identity: Identity) -> None:
    texts = ['a, "b"\nc\u2028d', "e"]
    body = 'v\r\n"a, ""b""\nc\u2028d"\r\ne\r\n'.encode()
    for text in (body, body.removeprefix(b"v\r\n")):
        answer = invoke(identity(TensorProto.STRING), text, b"text/csv")
        assert answer == {"predictions": texts}
    assert invoke(identity(TensorProto.INT64), b"v\n1\n2\n", b"text/csv") == {"predictions": [1, 2]}
    with pytest.raises(RequestError, match="does not fit"):
        invoke(identity(TensorProto.INT64), b"1,2\n3,4\n", b"text/csv")


@pytest.mark.parametrize(
    "request_", [{"instances": [[0] * 4, [1] * 4]}, {"inputs": {"x": [[0] * 4, [1] * 4]}}]
)
def test_rows_and_columns_give_nested_predictions(linear: Path, request_: object) -> None:
    predictions = invoke(linear, request_)["predictions"]
    assert [len(row) for row in predictions] == [3, 3]
    assert predictions[0] == pytest.approx([1 / 3] * 3)


def test_csv_with_and_without_column_names(linear: Path) -> None:
    expected = invoke(linear, {"instances": [[0, 1, 2, 3]]})
    assert invoke(linear, b"0,1,2,3\n", b"text/csv") == expected
    assert invoke(linear, b"a,b,c,d\r\n0,1,2,3\r\n", b"text/csv; charset=utf-8") == expected


def test_several_inputs_come_by_name_and_several_outputs_go_by_name(addition: Path) -> None:
    rows = [{"a": [1, 2], "b": [3, 4]}, {"a": [5, 6], "b": [7, 8]}]
    columns = {"a": [[1, 2], [5, 6]], "b": [[3, 4], [7, 8]]}
    expected = {"total": [[4, 6], [12, 14]], "product": [[3, 8], [35, 48]]}
    assert invoke(addition, {"instances": rows}) == {"predictions": expected}
    assert invoke(addition, {"inputs": columns}) == {"predictions": expected}


def test_strings_are_values(identity: Identity) -> None:
    folder = identity(TensorProto.STRING)
    assert invoke(folder, {"instances": ["a", "é"]}) == {"predictions": ["a", "é"]}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "one key: 'instances' or 'inputs'"),
        ({"instances": [], "inputs": []}, "one key"),
        ({"dataframe_split": {}}, "one key"),
        ({"instances": []}, "one at least"),
        ({"instances": 3}, "must be an array of rows"),
        ({"instances": [[1, 2, 3, 4], [1, 2]]}, "not nested as shape"),
        ({"instances": [[1, 2]]}, r"shape \[1, 2\] does not fit \[-1, 4\]"),
        ({"instances": [{"z": [1, 2, 3, 4]}]}, r"instances\[0\] must be an object with the keys x"),
        ({"instances": [{"x": [1] * 4}, 3]}, r"instances\[1\] must be an object"),
        ({"inputs": {"z": [[1] * 4]}}, "no input 'z'; inputs: x"),
        ({"inputs": {}}, "'x' missing"),
        ({"inputs": 3}, "does not fit"),
        ({"inputs": [["1", "2", "3", "4"]]}, "type string"),
    ],
)
def test_wrong_json_is_refused(linear: Path, request_: object, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        invoke(linear, request_)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no row"),
        (b"\xff", "not CSV in UTF-8"),
        (b"a,b\n", "row 1"),
        (b"1,2,3,4\n1,x,3,4\n", "row 2"),
        (b"1,2,3,4\n1,2\n", "not nested"),
        (b"nan,1,2,3\n", "out of range"),
        (b'"1,2', "not CSV"),
    ],
)
def test_wrong_csv_is_refused(linear: Path, body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        invoke(linear, body, b"text/csv")


def test_csv_and_bare_rows_need_a_model_with_one_input(addition: Path) -> None:
    with pytest.raises(RequestError, match="several inputs, name them: a, b"):
        invoke(addition, b"1,2\n", b"text/csv")
    with pytest.raises(RequestError, match="several inputs"):
        invoke(addition, {"instances": [[1, 2]]})


def test_other_content_types_are_refused(linear: Path) -> None:
    with pytest.raises(RequestError, match="application/x-npy") as caught:
        invoke(linear, b"", b"application/x-npy")
    assert caught.value.status == 415
