from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from tracklayer.errors import ModelError, ServiceError
from tracklayer.serving import Golden, golden

Identity = Callable[[int], Path]
Save = Callable[..., Path]


def test_the_request_is_the_same_each_time_and_passes_its_own_check(linear: Path) -> None:
    first, second = golden(linear), golden(linear)
    assert first == second
    assert first.request["inputs"][0]["shape"] == [1, 4]
    assert sum(first.response["outputs"][0]["data"]) == pytest.approx(1)
    first.check(first.response)


def test_it_lies_in_a_json_document(linear: Path) -> None:
    made = golden(linear)
    assert Golden.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "element", [TensorProto.STRING, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.UINT8]
)
def test_every_kind_of_input_can_be_made(identity: Identity, element: int) -> None:
    made = golden(identity(element))
    made.check(json.loads(json.dumps(made.response)))


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64])
def test_an_input_without_axes_gets_one_value(save: Save, tmp_path: Path, element: int) -> None:
    model = save(
        tmp_path / "scalar",
        [helper.make_node("Identity", ["t"], ["y"])],
        [helper.make_tensor_value_info("t", element, [])],
        [helper.make_tensor_value_info("y", element, [])],
    )
    made = golden(model)
    assert made.request["inputs"][0]["shape"] == []
    made.check(json.loads(json.dumps(made.response)))


def test_small_differences_pass(linear: Path) -> None:
    made = golden(linear)
    answer = copy.deepcopy(made.response)
    answer["outputs"][0]["data"] = [value * 1.0005 for value in answer["outputs"][0]["data"]]
    made.check(answer)


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda answer: answer["outputs"][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (change("data", [0.9, 0.05, 0.05]), "value 0 is 0.9 instead of"),
        (change("data", [0.9]), "1 values instead of 3"),
        (change("data", [None, 1, 1]), "'y': "),
        (change("data", "abc"), "data is abc"),
        (change("shape", [3]), r"shape \[3\] instead of \[1, 3\]"),
        (change("datatype", "FP64"), "datatype FP64 instead of FP32"),
        (change("name", "z"), r"outputs \['z'\] instead of \['y'\]"),
        (lambda answer: answer.pop("outputs"), "no outputs"),
        (lambda answer: answer["outputs"].append(answer["outputs"][0]), "outputs"),
    ],
)
def test_a_wrong_answer_says_what_differs(
    linear: Path, alter: Callable[[dict[str, Any]], None], message: str
) -> None:
    made = golden(linear)
    answer = copy.deepcopy(made.response)
    alter(answer)
    with pytest.raises(ServiceError, match=message):
        made.check(answer)


def write(folder: Path, document: object) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "golden.json").write_text(text)


X = {"name": "i", "shape": [2], "datatype": "INT64", "data": [0, 2]}
ROW = {"name": "row", "shape": [2], "datatype": "FP32", "data": [1.0, 3.0]}


def test_the_file_gives_request_and_answer(lookup: Path) -> None:
    write(lookup, {"inputs": [X]})
    assert golden(lookup) == Golden({"inputs": [X]}, {"outputs": [ROW]})
    write(lookup, {"inputs": [X], "outputs": [ROW]})
    assert golden(lookup) == Golden({"inputs": [X]}, {"outputs": [ROW]})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "golden.json is not valid JSON"),
        ([], "must be an object"),
        ({"inputs": [X], "more": 1}, "must be an object"),
        ({"inputs": [X | {"shape": [3]}]}, "does not suit the model: .*needs 3 values"),
        ({"inputs": [X | {"data": [0, 9]}]}, "out of data bounds"),
        ({"inputs": [X], "outputs": [ROW | {"data": [1, 2]}]}, "value 1 is 3.0 instead of 2.0"),
        ({"inputs": [X], "outputs": [{"name": "row"}]}, r"outputs\[0\] must be"),
    ],
)
def test_a_wrong_file_is_a_model_error(lookup: Path, document: object, message: str) -> None:
    write(lookup, document)
    with pytest.raises(ModelError, match=message):
        golden(lookup)


def test_an_answer_that_is_no_number_is_a_model_error(logarithm: Path) -> None:
    write(
        logarithm,
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}]},
    )
    with pytest.raises(ModelError, match="'y' is NaN or infinite"):
        golden(logarithm)
