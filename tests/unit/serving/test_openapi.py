from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator, ValidationError
from onnx import TensorProto, helper

from tracklayer.serving import deepaas, invocations, open_inference, openapi
from tracklayer.serving.formats import load
from tracklayer.serving.http import Service
from tracklayer.serving.model import Array, Call, RequestError, Signature, Tensor

MODELS = ("linear", "addition", "lookup", "loop", "scalar")


@pytest.fixture
def scalar(tmp_path: Path, save: Callable[..., Path]) -> Path:
    """Gives back its input ``v``, which has no axes, as ``w``."""
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in "vw"]
    nodes = [helper.make_node("Identity", ["v"], ["w"])]
    return save(tmp_path / "scalar", nodes, values[:1], values[1:])


@pytest.fixture(params=MODELS)
def service(request: pytest.FixtureRequest) -> Service:
    return Service("m", "3", load(request.getfixturevalue(request.param)))


def validator(service: Service, name: str) -> Draft202012Validator:
    document = orjson.loads(orjson.dumps(openapi.document([service])))
    schemas = {"components": document["components"]}
    return Draft202012Validator(schemas | {"$ref": f"#/components/schemas/{name}"})


def example(service: Service, name: str) -> Any:
    return openapi.document([service])["components"]["schemas"][name]["examples"][0]


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        yield from [document["$ref"]] if "$ref" in document else []
        for inner in document.values():
            yield from references(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from references(inner)


def test_the_document_has_the_routes_of_all_protocols(service: Service) -> None:
    document = openapi.document([service])
    served = {
        path: "get" if route.get else "post"
        for protocol in (open_inference, invocations, deepaas)
        for path, route in protocol.routes(service).items()
    }
    assert {path: next(iter(methods)) for path, methods in document["paths"].items()} == served
    assert document["openapi"] == "3.1.0"
    assert (document["info"]["title"], document["info"]["version"]) == ("m", "3")


def test_its_schemas_are_schemas_and_its_references_lead_somewhere(service: Service) -> None:
    document = openapi.document([service])
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
        for shown in schema.get("examples", []):
            Draft202012Validator(schema).validate(shown)
    assert set(references(document)) == {
        f"#/components/schemas/{name}"
        for name in (
            *("InferenceRequest", "InferenceResponse", "Error", "Inputs"),
            *("Invocation", "Predictions", "DeepaasPredictions"),
        )
    }


def test_its_examples_are_answered_and_the_answers_are_as_it_says(service: Service) -> None:
    routes = {}
    for protocol in (open_inference, invocations, deepaas):
        routes |= protocol.routes(service)
    for path, request, response in (
        ("/v2/models/m/infer", "InferenceRequest", "InferenceResponse"),
        ("/invocations", "Invocation", "Predictions"),
        ("/v2/models/m/predict/", "Inputs", "DeepaasPredictions"),
    ):
        infer = routes[path].infer
        assert infer
        body = orjson.dumps(example(service, request))
        reply = infer(body, {}, service.model.call())
        assert reply.status == 200, reply.body
        validator(service, response).validate(orjson.loads(reply.body))


@pytest.mark.parametrize(
    "changes", [{"name": "z"}, {"shape": [1]}, {"shape": [1, 5]}, {"datatype": "FP64"}, {"z": 1}]
)
def test_what_the_server_refuses_the_schema_refuses(linear: Path, changes: dict[str, Any]) -> None:
    service = Service("m", "3", load(linear))
    request = example(service, "InferenceRequest")
    wrong = {"inputs": [request["inputs"][0] | changes]}
    with pytest.raises(ValidationError):
        validator(service, "InferenceRequest").validate(wrong)


@pytest.mark.parametrize("params", [None, {}, {"t": 1}, [], 0])
@pytest.mark.parametrize("form", ["inputs", "instances", "dataframe_split", "dataframe_records"])
def test_the_schema_takes_the_parameters_that_the_server_takes(
    linear: Path, form: str, params: object
) -> None:
    service = Service("m", "3", load(linear))
    rows = [[0.0] * 4]
    given: dict[str, object] = {
        "dataframe_split": {"columns": [*"abcd"], "data": rows},
        "dataframe_records": [dict.fromkeys("abcd", 0.0)],
    }
    request = {form: given.get(form, rows), "params": params}
    check = validator(service, "Invocation")
    infer = invocations.routes(service)["/invocations"].infer
    assert infer
    if params in (None, {}):
        check.validate(request)
        assert infer(orjson.dumps(request), {}, service.model.call()).status == 200
        return
    with pytest.raises(ValidationError):
        check.validate(request)
    with pytest.raises(RequestError, match="params"):
        infer(orjson.dumps(request), {}, service.model.call())


def test_the_refusals_are_described(linear: Path, use: Callable[..., None]) -> None:
    async def test(client: httpx.AsyncClient, _: object, service: Service) -> None:
        check = validator(service, "Error")
        paths = openapi.document([service])["paths"]
        for path, status, headers in (
            ("/invocations", 400, {}),
            ("/invocations", 406, {"accept": "image/png"}),
            ("/invocations", 413, {}),
            ("/invocations", 415, {"content-type": "image/png"}),
            ("/v2/models/m/infer", 415, {"content-encoding": "gzip"}),
            ("/v2/models/m/infer", 431, {f"x-{number}": "y" for number in range(101)}),
            ("/v2/models/m/predict/", 400, {}),
            ("/v2/models/m/predict/", 415, {"content-type": "text/csv"}),
        ):
            content = b"0" * (2000 if status == 413 else 1)
            answer = await client.post(path, content=content, headers=headers)
            assert answer.status_code == status
            assert str(status) in paths[path]["post"]["responses"]
            check.validate(answer.json())

    use(linear, test, body=1000)


def test_a_failure_of_the_model_is_described(logarithm: Path) -> None:
    service = Service("m", "3", load(logarithm))
    infer = invocations.routes(service)["/invocations"].infer
    assert infer
    with pytest.raises(RequestError) as caught:
        infer(b'{"inputs": [0]}', {}, service.model.call())
    for methods in openapi.document([service])["paths"].values():
        if "post" in methods:
            assert str(caught.value.status) in methods["post"]["responses"]


def test_a_large_input_has_no_example_and_one_in_place_of_inputs_is_shown() -> None:
    class Large:
        platform = "x"
        signature = Signature(
            (Tensor("pixels", "FP32", ("batch", 3, 224, 224)),),
            (Tensor("y", "FP32", ("batch", 10)),),
            Tensor("image", "BYTES", ("batch",)),
        )

        def call(self) -> Call:
            raise AssertionError

        def run(self, *_: object) -> list[Array]:
            raise AssertionError

    service = Service("m", "3", Large())
    document = orjson.dumps(openapi.document([service]))
    assert len(document) < 20_000
    assert b"examples" not in document
    check = validator(service, "Inputs")
    check.validate({"image": ["aGk="]})
    with pytest.raises(ValidationError):
        check.validate({"image": [1]})


def test_several_models_have_their_own_schemas(linear: Path, addition: Path) -> None:
    services = [Service("m", "3", load(linear)), Service("n", "1", load(addition))]
    document = openapi.document(services)
    served: set[str] = set()
    for service in services:
        for protocol in (open_inference, invocations, deepaas):
            served |= protocol.routes(service, services).keys()
    assert document["paths"].keys() == served
    schemas = document["components"]["schemas"]
    assert {reference.rpartition("/")[2] for reference in references(document)} <= set(schemas)
    infer = document["paths"]["/v2/models/n/infer"]["post"]["requestBody"]["content"]
    name = infer["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert [each["name"] for each in schemas[name]["examples"][0]["inputs"]] == ["a", "b"]


def test_the_page_needs_nothing_from_anywhere_else(linear: Path) -> None:
    get = openapi.routes(Service("m", "3", load(linear)))["/docs"].get
    assert get
    reply = get()
    text = reply.body.decode()
    assert reply.content_type == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert not re.search(r"https?://|src=|@import|url\(|innerHTML", text)
    # It would show 18446744073709551615 as another number.
    assert "JSON.parse" not in text


def test_the_document_is_made_once(linear: Path) -> None:
    get = openapi.routes(Service("m", "3", load(linear)))["/openapi.json"].get
    assert get
    assert get() is get()
    assert orjson.loads(get().body)["servers"] == [{"url": "."}]
