from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from tracklayer.serving.documents import object_of
from tracklayer.serving.formats import load
from tracklayer.serving.http import Service
from tracklayer.serving.model import RequestError
from tracklayer.serving.open_inference import routes

Identity = Callable[[int], Path]
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0.5, 1, 2]}


def infer(folder: Path, request: object, headers: dict[bytes, bytes] | None = None) -> Any:
    service = Service("m", "3", load(folder))
    handler = routes(service)["/v2/models/m/infer"].infer
    assert handler
    body = request if isinstance(request, bytes) else orjson.dumps(request)
    return orjson.loads(handler(body, headers or {}, service.model.call()).body)


def test_an_answer_has_all_that_the_protocol_asks_for(linear: Path) -> None:
    answer = infer(linear, {"id": "a7", "inputs": [X], "parameters": {"anything": 1}})
    [output] = answer.pop("outputs")
    assert answer == {"model_name": "m", "model_version": "3", "id": "a7"}
    assert (output["name"], output["shape"], output["datatype"]) == ("y", [1, 3], "FP32")
    assert sum(output["data"]) == pytest.approx(1)


def test_kserves_client_names_the_model_in_the_body(linear: Path) -> None:
    assert infer(linear, {"model_name": "m", "inputs": [X]})["model_name"] == "m"


def test_an_identifier_may_be_empty(linear: Path) -> None:
    assert infer(linear, {"id": "", "inputs": [X]})["id"] == ""


def test_outputs_are_chosen_and_ordered_by_the_client(addition: Path) -> None:
    inputs = [
        {"name": name, "shape": [1, 2], "datatype": "FP64", "data": [[2, 3]]} for name in "ab"
    ]
    answer = infer(addition, {"inputs": inputs, "outputs": [{"name": "product"}]})
    assert [(o["name"], o["data"]) for o in answer["outputs"]] == [("product", [4, 9])]
    answer = infer(addition, {"inputs": inputs})
    assert [o["name"] for o in answer["outputs"]] == ["total", "product"]


@pytest.mark.parametrize(
    ("element", "datatype", "data"),
    [
        (TensorProto.BOOL, "BOOL", [True, False]),
        (TensorProto.UINT8, "UINT8", [0, 255]),
        (TensorProto.UINT16, "UINT16", [0, 65535]),
        (TensorProto.UINT32, "UINT32", [0, 2**32 - 1]),
        (TensorProto.UINT64, "UINT64", [0, 2**64 - 1]),
        (TensorProto.INT8, "INT8", [-128, 127]),
        (TensorProto.INT16, "INT16", [-32768, 32767]),
        (TensorProto.INT32, "INT32", [-(2**31), 2**31 - 1]),
        (TensorProto.INT64, "INT64", [-(2**63), 2**63 - 1]),
        (TensorProto.FLOAT16, "FP16", [0.5, -2.0]),
        (TensorProto.FLOAT, "FP32", [0.1, -2.5]),
        (TensorProto.DOUBLE, "FP64", [0.1, -1e300]),
        (TensorProto.STRING, "BYTES", ["née", ""]),
    ],
)
def test_every_type_goes_through_a_model(
    identity: Identity, element: int, datatype: str, data: list[Any]
) -> None:
    tensor = {"name": "v", "shape": [2], "datatype": datatype, "data": data}
    [output] = infer(identity(element), {"inputs": [tensor]})["outputs"]
    assert output == tensor | {"name": "w"}


def broken(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{key: value for key, value in (X | changes).items() if value is not ...}]}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (
            orjson.dumps(broken()).replace(b"0.5", b"NaN"),
            r"not valid JSON at inputs\[0\].data\[\d\]: NaN is no number there",
        ),
        (orjson.dumps(broken()).replace(b"0.5", b"1e999"), "not valid JSON"),
        ([], "must be a JSON object"),
        ({}, "inputs must be an array"),
        ({"inputs": {}}, "inputs must be an array"),
        ({"inputs": [], "extra": 1}, "unknown key 'extra'"),
        ({"inputs": []}, "'x' missing"),
        ({"inputs": [1]}, r"inputs\[0\] must be an object"),
        ({"inputs": [X, X]}, r"inputs\[1\]: input 'x' is given twice"),
        ({"inputs": [X | {"name": "z"}]}, r"inputs\[0\]: no input 'z'; inputs: x"),
        (broken(name=...), "name must be a string"),
        (broken(name=3), "name must be a string"),
        (broken(extra=3), "unknown key 'extra'"),
        (broken(parameters=3), "parameters must be an object"),
        (broken(parameters=None), "parameters must be an object"),
        (broken(parameters={"a": []}), r"inputs\[0\]: parameter 'a' must be a string, a number"),
        (broken(parameters={"a": None}), "parameter 'a' must be a string"),
        (broken(parameters={"shared_memory_region": "r"}), "shared_memory_region is not served"),
        ({"inputs": [X], "parameters": {"binary_data_output": 1}}, "must be true or false"),
        ({"inputs": [X], "model_name": "other"}, "model_name: this is 'm'"),
        (broken(datatype=...), "datatype must be 'FP32'"),
        (broken(datatype="FP64"), "datatype must be 'FP32'"),
        (broken(shape=...), "'x': shape must be"),
        (broken(shape=[0, 2**63]), r"does not fit"),
        (broken(shape=[2**64 - 1, 4]), "needs 73786976294838206460 values"),
        (broken(shape=[4]), r"'x': shape \[4\] does not fit \[-1, 4\]"),
        (broken(data=...), "'x': data must be an array"),
        ({"inputs": [X], "id": 3}, "id must be a string"),
        ({"inputs": [X], "parameters": []}, "parameters must be an object"),
        ({"inputs": [X], "outputs": {}}, "outputs must be an array"),
        ({"inputs": [X], "outputs": [{"name": "q"}]}, r"outputs\[0\]: no output 'q'; outputs: y"),
        ({"inputs": [X], "outputs": [{"name": "y"}] * 2}, "asked for twice"),
        ({"inputs": [X], "outputs": [{"name": "y", "data": []}]}, "unknown key 'data'"),
    ],
)
def test_what_breaks_the_protocol_is_refused_and_named(
    linear: Path, request_: object, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        infer(linear, request_)
    assert caught.value.status == 400


def test_axes_of_one_name_must_agree(addition: Path) -> None:
    inputs = [
        {"name": "a", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]},
        {"name": "b", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]},
    ]
    with pytest.raises(RequestError, match=r"'b': axis 0 \('batch'\) has size 2, but it is 1"):
        infer(addition, {"inputs": inputs})


def test_an_infinite_output_is_an_error(logarithm: Path) -> None:
    zero = {"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}
    with pytest.raises(RequestError, match="output 'y' holds NaN or infinity"):
        infer(logarithm, {"inputs": [zero]})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["inputs", "outputs", "name", "shape", "datatype", "data", "id", "z"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(document=st.dictionaries(st.sampled_from(["inputs", "outputs", "id"]), JSON), item=JSON)
def test_no_json_whatever_gets_past_the_reader_or_breaks_it(document: Any, item: Any) -> None:
    from tracklayer.serving.model import Signature, Tensor
    from tracklayer.serving.open_inference import read

    class Model:
        signature = Signature((Tensor("x", "FP32", ("", 2)),), (Tensor("y", "FP32", ("",)),))

    document["inputs"] = [item] if isinstance(item, dict) else document.get("inputs", item)
    try:
        feeds = read(cast(Any, Model()), object_of(orjson.dumps(document))).feeds
    except RequestError as error:
        feeds, status = {}, error.status
    else:
        status = 200
    assert (status == 400) != (status == 200 and feeds["x"].shape[1] == 2)


def test_a_server_of_several_is_ready_when_all_are(linear: Path) -> None:
    model = load(linear)
    peers = [Service("m", "3", model), Service("m", "2", model)]
    table = routes(peers[0], peers)
    metadata, ready = table["/v2/models/m"].get, table["/v2/health/ready"].get
    assert metadata
    assert ready
    assert orjson.loads(metadata().body)["versions"] == ["3", "2"]
    assert ready().status == 200
    peers[1].draining = True
    assert ready().status == 503


def test_metadata_and_health(linear: Path) -> None:
    service = Service("m", "3", load(linear))
    table = routes(service)

    def get(path: str) -> tuple[int, Any]:
        handler = table[path].get
        assert handler
        reply = handler()
        return reply.status, orjson.loads(reply.body)

    assert get("/v2")[1]["name"] == "tracklayer"
    assert get("/v2")[1]["extensions"] == ["binary_tensor_data"]
    assert get("/v2/health/live") == (200, {"live": True})
    assert get("/v2/health/ready") == (200, {"ready": True})
    assert get("/v2/models/m/versions/3/ready") == (200, {"name": "m", "ready": True})
    assert get("/v2/models/m") == get("/v2/models/m/versions/3")
    assert get("/v2/models/m")[1] == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    service.draining = True
    assert get("/v2/health/ready") == (503, {"ready": False})
    assert get("/v2/models/m/ready") == (503, {"name": "m", "ready": False})
    assert get("/v2/health/live")[0] == 200
