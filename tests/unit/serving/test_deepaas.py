from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tracklayer.serving import open_inference
from tracklayer.serving.deepaas import routes
from tracklayer.serving.formats import load
from tracklayer.serving.http import Service


def get(folder: Path, path: str) -> Any:
    handler = routes(Service("m", "3", load(folder)))[path].get
    assert handler
    return orjson.loads(handler().body)


def predict(
    folder: Path, request: object, content_type: bytes = b"application/json"
) -> tuple[int, Any]:
    service = Service("m", "3", load(folder))
    handler = routes(service)["/v2/models/m/predict/"].infer
    assert handler
    body = request if isinstance(request, bytes) else orjson.dumps(request)
    reply = handler(body, {b"content-type": content_type}, service.model.call())
    return reply.status, orjson.loads(reply.body)


def test_a_model_says_what_it_is(linear: Path) -> None:
    described = get(linear, "/v2/models/m/")
    assert described == {
        "id": "m",
        "name": "m",
        "version": "3",
        "description": "onnx_onnxv1; takes x FP32 [-1, 4]; gives y FP32 [-1, 3]",
        "links": [{"rel": "self", "type": "application/json", "href": "./"}],
    }
    [listed] = get(linear, "/v2/models/")["models"]
    assert listed == described | {
        "links": [{"rel": "self", "type": "application/json", "href": "m/"}]
    }
    assert get(linear, "/v2/")["id"] == "v2"


def test_a_name_with_several_versions_is_listed_once(linear: Path, addition: Path) -> None:
    model = load(linear)
    peers = [Service("m", "3", model), Service("n", "1", load(addition)), Service("m", "2", model)]
    listed = routes(peers[2], peers)["/v2/models/"].get
    assert listed
    models = orjson.loads(listed().body)["models"]
    assert [(each["name"], each["version"]) for each in models] == [("m", "3"), ("n", "1")]


def test_the_slash_at_the_end_tells_it_from_the_other_protocol(linear: Path) -> None:
    service = Service("m", "3", load(linear))
    assert not routes(service).keys() & open_inference.routes(service).keys()


def test_a_prediction_takes_the_inputs_by_name(linear: Path, addition: Path) -> None:
    status, answer = predict(linear, {"x": [[0, 0, 0, 0]]})
    assert (status, answer["status"]) == (200, "OK")
    assert answer["predictions"] == [pytest.approx([1 / 3] * 3)]
    _, answer = predict(addition, {"a": [[1, 2]], "b": [[3, 4]]})
    assert answer["predictions"] == {"total": [[4, 6]], "product": [[3, 8]]}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"{", "not valid JSON"),
        ([], "must be a JSON object"),
        ({}, "'x' missing"),
        ({"z": 1}, "no input 'z'; inputs: x"),
        ({"x": [[1]]}, "'x': shape [1, 1] does not fit [-1, 4]"),
        ({"x": [["1"] * 4]}, "type string"),
    ],
)
def test_a_refusal_has_the_words_of_both(linear: Path, request_: object, message: str) -> None:
    status, answer = predict(linear, request_)
    assert status == 400
    assert message in answer["message"]
    assert answer["error"] == answer["message"]


def test_other_content_types_are_refused(linear: Path) -> None:
    status, answer = predict(linear, b"x=1", b"application/x-www-form-urlencoded")
    assert status == 415
    assert answer["message"].startswith("content-type")
