from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import orjson
import pytest
from onnx import TensorProto, helper

from tracklayer.serving.formats import load
from tracklayer.serving.http import Reply, Service
from tracklayer.serving.invocations import routes
from tracklayer.serving.model import RequestError

Identity = Callable[[int], Path]


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    """``word``, ``count`` and ``good`` as they came; the second has two axes."""
    kinds = {
        "word": (TensorProto.STRING, ["n"]),
        "count": (TensorProto.INT64, ["n", 1]),
        "good": (TensorProto.BOOL, ["n"]),
    }
    values = {name: helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()}
    outputs = [helper.make_tensor_value_info(f"{name}_", *kind) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_"]) for name in kinds]
    graph = helper.make_graph(nodes, "graph", list(values.values()), outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "columns"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return folder


def reply(folder: Path, request: object, **headers: bytes) -> Reply:
    service = Service("m", "3", load(folder))
    handler = routes(service)["/invocations"].infer
    assert handler
    body = request if isinstance(request, bytes) else orjson.dumps(request)
    names = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return handler(body, names, service.model.call())


def invoke(folder: Path, request: object, content_type: bytes = b"application/json") -> Any:
    return orjson.loads(reply(folder, request, content_type=content_type).body)


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
    # Numbers are no names: a line of them is a row.
    assert len(invoke(linear, b"0,1,2,3\n0,1,2,3\n", b"text/csv")["predictions"]) == 2


def test_a_byte_order_mark_is_no_part_of_csv(linear: Path, identity: Identity) -> None:
    for line in ("0,1,2,3", "a,b,c,d\n0,1,2,3"):
        marked = invoke(linear, f"\ufeff{line}\n".encode(), b"text/csv")
        assert marked == invoke(linear, b"0,1,2,3\n", b"text/csv")
    texts = invoke(identity(TensorProto.STRING), "\ufeffv\na\n".encode(), b"text/csv")
    assert texts == {"predictions": ["a"]}


def test_a_number_of_another_type_is_no_name(identity: Identity) -> None:
    for first in ("2.0", "nan", "1_0", "true", '""'):
        with pytest.raises(RequestError, match=r"line 1, column 1: .* is no value of INT64"):
            invoke(identity(TensorProto.INT64), f"{first}\n3\n".encode(), b"text/csv")


def test_a_cell_may_be_as_large_as_an_image(identity: Identity) -> None:
    text = "A" * 300_000
    found = invoke(identity(TensorProto.STRING), f"{text}\n".encode(), b"text/csv")
    assert found == {"predictions": [text]}


def test_of_texts_only_the_name_of_the_input_is_a_name(identity: Identity) -> None:
    folder = identity(TensorProto.STRING)
    assert invoke(folder, b"v\na\n", b"text/csv") == {"predictions": ["a"]}
    assert invoke(folder, b"w\na\n", b"text/csv") == {"predictions": ["w", "a"]}


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
        ({}, "one key of 'instances', 'inputs', 'dataframe_split', 'dataframe_records'"),
        (3, "one key of"),
        ([], "one at least"),
        ({"instances": [], "inputs": []}, "one key of"),
        ({"instances": [], "extra": []}, "one key of"),
        ({"inputs": [[1] * 4], "params": {"t": 1}}, "params: this model takes no parameters"),
        ({"inputs": [[1] * 4], "params": 0}, "params: this model takes no parameters"),
        ({"dataframe_split": {}}, "keys columns and data"),
        ({"dataframe_split": {"columns": [], "data": [], "z": 1}}, "keys columns and data"),
        ({"dataframe_split": {"columns": 1, "data": []}}, "must be arrays"),
        ({"dataframe_split": {"columns": [None], "data": []}}, "columns must be strings"),
        ({"dataframe_split": {"columns": ["a"], "data": [1]}}, "array of arrays"),
        ({"dataframe_split": {"columns": ["a"], "data": []}}, "holds no row"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "row 1 has 2 values"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "'a' is there twice"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, r"does not fit \[-1, 4\]"),
        ({"dataframe_split": {"columns": [*"abcd"], "data": [[1, 2, 3, None]]}}, "type null"),
        ({"dataframe_records": {}}, "array of objects"),
        ({"dataframe_records": [{"a": 1}, {"b": 1}]}, r"records\[1\] must be an object"),
        ({"instances": []}, "one at least"),
        ({"instances": 3}, "must be an array of rows"),
        ({"instances": [[1, 2, 3, 4], [1, 2]]}, r"instances: data\[1\] has 2 values"),
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
        (b"a,b\n", "line 1, column 1: 'a' is no value of FP32"),
        (b"1,2,3,4\n1,x,3,4\n", "line 2, column 2: 'x' is no value"),
        (b"1,2,3,4\n1,2\n", "line 2 has 2 values, there are 4 columns"),
        (b"a,b,c,d\n\n1,2,3,x\n", "line 3, column 'd': 'x' is no value"),
        (b"a,b,c,d\r\n\r\n1,2\r\n", "line 3 has 2 values, there are 4 columns"),
        (b'1,2,3,4\n"1\n",2,3,4\n1,2,3,x\n', "line 4, column 4: 'x' is no value"),
        (b",2,3,4\n1,2,3,4\n", "line 1, column 1: '' is no value of FP32"),
        (b"1,2,3,4o\n1,2,3,4\n", "line 1, column 4: '4o' is no value of FP32"),
        (b",a,b,c\n1,2,3,4\n", "line 1, column 1: '' is no value of FP32"),
        (b"a,true,c,d\n1,2,3,4\n", "line 1, column 1: 'a' is no value of FP32"),
        (b"nan,1,2,3\n", "NaN or infinite"),
        (b"1e999,1,2,3\n", "NaN or infinite"),
        (b"1e39,1,2,3\n", "out of range"),
        (b"1_0,1,2,3\n", "line 1, column 1: '1_0' is no value of FP32"),
        ("\u0661,1,2,3\n".encode(), "no value of FP32"),
        (b"x\n", "holds no row"),
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


def test_a_data_frame_is_a_table_of_the_only_input(linear: Path) -> None:
    rows = [[0, 1, 2, 3], [4, 5, 6, 7]]
    expected = invoke(linear, {"instances": rows})
    split = {"columns": [*"abcd"], "index": [0, 1], "data": rows}
    assert invoke(linear, {"dataframe_split": split, "params": {}}) == expected
    assert invoke(linear, {"dataframe_split": split | {"columns": [0, 1, 2, 3]}}) == expected
    records = [dict(zip("abcd", row, strict=True)) for row in rows]
    assert invoke(linear, {"dataframe_records": records, "params": None}) == expected
    shuffled = [dict(reversed(record.items())) for record in records[1:]]
    assert invoke(linear, {"dataframe_records": [records[0], *shuffled]}) == expected
    assert invoke(linear, rows) == expected


def test_columns_that_are_called_as_inputs_are_those_inputs(addition: Path) -> None:
    expected = {"predictions": {"total": [[4, 6]], "product": [[3, 8]]}}
    split = {"columns": ["b", "a"], "data": [[[3, 4], [1, 2]]]}
    assert invoke(addition, {"dataframe_split": split}) == expected
    assert invoke(addition, {"dataframe_records": [{"b": [3, 4], "a": [1, 2]}]}) == expected
    with pytest.raises(RequestError, match="several inputs, name them: a, b"):
        invoke(addition, {"dataframe_split": {"columns": ["z", "a"], "data": [[[3, 4], [1, 2]]]}})
    for record, difference in (
        ({"a": [1, 2], "z": [3, 4]}, "unknown: 'z'; missing: 'b'"),
        ({"a": [1, 2]}, "missing: 'b'"),
        ({"a": [1, 2], "b": [3, 4], "c": [5, 6]}, "unknown: 'c'"),
        ({"\ufeffa": [1, 2], "b": [3, 4]}, r"unknown: '\\ufeffa'; missing: 'a'"),
    ):
        for form in (
            {"dataframe_records": [record]},
            {"dataframe_split": {"columns": list(record), "data": [list(record.values())]}},
        ):
            with pytest.raises(RequestError, match=f"name them: a, b; {difference}$"):
                invoke(addition, form)


def test_csv_with_the_inputs_names(columns: Path) -> None:
    body = b"word,count,good\nup,1,true\n,2,False\n"
    expected = {"word_": ["up", ""], "count_": [[1], [2]], "good_": [True, False]}
    for text in (body, b"good,count,word\ntrue,1,up\nFALSE,2,\n"):
        assert invoke(columns, text, b"text/csv") == {"predictions": expected}
    for text, message in (
        (b"word,count,good\nup,1,yes\n", "line 2, column 'good': 'yes' is no value of BOOL"),
        (b"word,count,good\nup,1.0,true\n", "line 2, column 'count': '1.0' is no value of INT64"),
        (b"word,count,good\nup,1\n", "line 2 has 2 values, there are 3 columns"),
        (b"word,count,good\n", "no row"),
        (b"word,count\nup,1\n", "name them: word, count, good; missing: 'good'$"),
        (b"word,count,good,z\nup,1,true,1\n", "count, good; unknown: 'z'$"),
        (b",word,count,good\n0,up,1,true\n", "count, good; unknown: ''$"),
        (b"word, count,good\nup,1,true\n", "; unknown: ' count'; missing: 'count'$"),
        (b"up,1,true\n", "; unknown: 'up', '1', 'true'; missing: 'word', 'count', 'good'$"),
        (b"z" * 400 + b"\nup\n", "; unknown: 'z{299}; missing: 'word', 'count', 'good'$"),
    ):
        with pytest.raises(RequestError, match=message):
            invoke(columns, text, b"text/csv")


def test_rows_as_lines_of_json(linear: Path, addition: Path) -> None:
    expected = invoke(linear, {"instances": [[0, 1, 2, 3], [4, 5, 6, 7]]})
    body = b"[0, 1, 2, 3]\n\n[4, 5, 6, 7]\r\n"
    assert invoke(linear, body, b"application/jsonlines") == expected
    sum_ = invoke(addition, b'{"a": [1, 2], "b": [3, 4]}', b"application/jsonlines")
    assert sum_["predictions"]["total"] == [[4, 6]]
    for text, message in (
        (b"[0, 1, 2, 3]\n{\n", "line 2 is not valid JSON"),
        (b"\n", "one at least"),
    ):
        with pytest.raises(RequestError, match=message):
            invoke(linear, text, b"application/jsonlines")


def test_the_answer_is_what_the_client_accepts(addition: Path, identity: Identity) -> None:
    request = {"inputs": {"a": [[1, 2], [5, 6]], "b": [[3, 4], [7, 8]]}}
    got = reply(addition, request, accept=b"text/csv")
    assert (got.content_type, got.body) == (
        "text/csv; charset=utf-8",
        b"4.0,6.0,3.0,8.0\n12.0,14.0,35.0,48.0\n",
    )
    got = reply(addition, request, accept=b"application/jsonlines")
    assert got.content_type == "application/jsonlines"
    assert [orjson.loads(line) for line in got.body.splitlines()] == [
        {"total": [4, 6], "product": [3, 8]},
        {"total": [12, 14], "product": [35, 48]},
    ]
    for accept in (b"*/*", b"text/html, application/json;q=0.9", b"application/*"):
        assert reply(addition, request, accept=accept).content_type == "application/json"
    texts = reply(identity(TensorProto.STRING), ['a "b"', "c,d"], accept=b"text/csv")
    assert texts.body == b'"a ""b"""\n"c,d"\n'
    with pytest.raises(RequestError, match="accept: answers are application/json") as caught:
        reply(addition, request, accept=b"image/png")
    assert caught.value.status == 406


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        (b"text/csv;q=0.1, application/json", "application/json"),
        (b"application/json;q=0, text/csv", "text/csv"),
        (b"*/*;q=0.1, text/csv", "text/csv"),
        (b"*/*;q=0.1, text/*;q=0.2", "text/csv"),
        (b"text/*", "text/csv"),
        (b"text/*, text/csv;q=0.1, application/json;q=0.2", "application/json"),
        (b"application/*, application/json;q=0.5", "application/jsonlines"),
        (b"*/*, application/json;q=0", "application/jsonlines"),
        (b"text/csv;q=0, */*;q=0.001", "application/json"),
        (b"text/csv, application/json", "text/csv"),
        (b"application/json;q=1.000, text/csv;q=1", "application/json"),
        (b"Text/CSV ; header=absent ; Q=0.5 , image/png", "text/csv"),
        (b"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json"),
        (b"", "application/json"),
        (b" , ", "application/json"),
    ],
)
def test_the_weights_of_what_is_accepted_count(linear: Path, accept: bytes, given: str) -> None:
    answer = reply(linear, {"instances": [[0] * 4]}, accept=accept)
    assert answer.content_type.partition(";")[0] == given


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (b"application/json;q=0", 406),
        (b"*/*;q=0.0", 406),
        (b"application/xml, text/plain;q=0.5", 406),
        (b"text/*, text/csv;q=0", 406),
        (b"text/csv;q=2", 400),
        (b"text/csv;q=-1", 400),
        (b"text/csv;q=nan", 400),
        (b"text/csv;q=", 400),
    ],
)
def test_what_cannot_be_accepted_is_refused(linear: Path, accept: bytes, status: int) -> None:
    with pytest.raises(RequestError, match=r"^accept: ") as caught:
        reply(linear, {"instances": [[0] * 4]}, accept=accept)
    assert caught.value.status == status


def test_an_answer_without_rows_is_no_lines(loop: Path) -> None:
    assert invoke(loop, {"inputs": [1]}) == {"predictions": 0.0}
    with pytest.raises(RequestError, match="no rows; accept application/json") as caught:
        reply(loop, {"inputs": [1]}, accept=b"text/csv")
    assert caught.value.status == 406
