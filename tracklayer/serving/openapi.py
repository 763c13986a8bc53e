"""``/openapi.json``: the routes of a model and the schemas of its tensors; ``/docs``: to read them.

OpenAPI 3.1, whose schemas are JSON Schema. The page needs nothing from anywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tracklayer.serving.http import Reply, Route, Service, json_reply
from tracklayer.serving.model import DATATYPES, Signature, Tensor

Schema = dict[str, Any]

_PAGE = Path(__file__).with_name("docs.html")
_SAFE = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
)
_EXAMPLE = 1024
"""Values of an input up to which the document has an example."""

_OPEN, _PLAIN, _DEEPAAS = "Open Inference", "SageMaker and MLflow", "DEEPaaS"

_TEXT = {"type": "string"}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_REFUSALS = {
    "400": "The request is malformed or does not fit the model; the message names the field.",
    "401": "There is no valid key; of a server or a gateway that asks for one.",
    "403": "The key is not for this model.",
    "408": "The request took too long to come.",
    "413": "The body is larger than this server takes.",
    "415": "The body is of a type that is not served here, or compressed.",
    "429": "Too many requests with this key; see Retry-After.",
    "431": "The headers are larger, or more, than this server takes.",
    "500": "The model or the server failed on this request.",
    "503": "Too many requests at once, or the server is stopping; see Retry-After.",
    "504": "The answer took too long.",
}
_UNACCEPTABLE = "Accept wants none of the types there are, or lines of outputs that have no rows."
_NO_PARAMETERS = {"type": ["object", "null"], "maxProperties": 0}
"""What MLflow's client may send beside the inputs, of which our models have no use."""


def routes(service: Service, peers: Sequence[Service] = ()) -> dict[str, Route]:
    """Path -> what it answers, for one service.

    :param peers: all services of its server; default: there is no other.
    """

    @cache
    def written() -> Reply:
        return json_reply(document(peers or (service,)))

    @cache
    def page() -> Reply:
        headers = {"content-security-policy": _SAFE}
        return Reply(200, _PAGE.read_bytes(), "text/html; charset=utf-8", headers)

    return {"/openapi.json": Route(get=written), "/docs": Route(get=page)}


def document(services: Sequence[Service]) -> Schema:
    """The OpenAPI document of a server.

    :param services: the first answers where a path names none.
    """
    first = services[0]
    paths = {
        "/v2": _get("The server: name, version, extensions.", _OPEN),
        "/v2/health/live": _get("Does the server answer?", _OPEN),
        "/v2/health/ready": _get("Are its models ready?", _OPEN),
        "/v2/": _get("The version of the interface.", _DEEPAAS),
        "/v2/models/": _get("The models.", _DEEPAAS),
        "/invocations": _invocations(first, _prefix(first, services)),
        "/api/2.0/endpoints/": _get("The models, for MLflow's deployment client.", _PLAIN),
        "/ping": _get("Is the server ready?", _PLAIN),
        "/health": _get("Is the server ready?", _PLAIN),
        "/version": _get("The version of the server.", _PLAIN, _TEXT),
    }
    # DEEPaaS says it in "message" too.
    error = _object({"error": _TEXT, "message": _TEXT}, required=["error"])
    schemas: dict[str, Schema] = {"Error": error}
    for service in services:
        prefix = _prefix(service, services)
        for path, methods in _model_paths(service, prefix).items():
            paths.setdefault(path, methods)
        for name, schema in _schemas(service.model.signature).items():
            schemas[prefix + name] = schema
    models = ", ".join(f"{each.name} {each.version} ({each.model.platform})" for each in services)
    return {
        "openapi": "3.1.0",
        "info": {"title": first.name, "version": first.version, "description": f"Serves {models}."},
        # Relative, because the server may be behind a prefix.
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _prefix(service: Service, services: Sequence[Service]) -> str:
    """What tells the schemas of a service from those of the others."""
    return f"{service.name}-{service.version}-" if len(services) > 1 else ""


def _model_paths(service: Service, prefix: str) -> dict[str, Schema]:
    name, base = service.name, f"/v2/models/{service.name}"
    infer = _post(
        f"Infer with {name}.", _OPEN, f"{prefix}InferenceRequest", f"{prefix}InferenceResponse"
    )
    paths = {}
    for path in (base, f"{base}/versions/{service.version}"):
        paths[path] = _get(f"Inputs and outputs of {name}.", _OPEN)
        paths[f"{path}/ready"] = _get(f"Is {name} ready?", _OPEN)
        paths[f"{path}/infer"] = infer
    paths[f"{base}/"] = _get(f"What {name} is.", _DEEPAAS)
    paths[f"{base}/predict/"] = _post(
        f"Predict with {name}.", _DEEPAAS, f"{prefix}Inputs", f"{prefix}DeepaasPredictions"
    )
    paths[f"/endpoints/{name}/invocations"] = _invocations(service, prefix)
    paths[f"/api/2.0/endpoints/{name}"] = _get(f"{name}, for the same.", _PLAIN)
    return paths


def _schemas(signature: Signature) -> dict[str, Schema]:
    inputs = _known(signature)
    return {
        "InferenceRequest": _object(
            {
                "id": _TEXT,
                "model_name": _TEXT,
                "parameters": _PARAMETERS,
                "inputs": {
                    "type": "array",
                    "items": {"oneOf": [_tensor(t, _PARAMETERS) for t in inputs]},
                },
                "outputs": {"type": "array", "items": _requested(signature)},
            },
            required=["inputs"],
        )
        | _examples({"inputs": [_example(t) for t in signature.inputs]}, signature),
        "InferenceResponse": _object(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "outputs": {
                    "type": "array",
                    "items": {"oneOf": [_tensor(t) for t in signature.outputs]},
                },
            },
            required=["model_name", "model_version", "outputs"],
        ),
        "Inputs": _inputs(signature) | _examples(_named(signature), signature),
        "Invocation": {
            "oneOf": [
                _form("inputs", {"oneOf": [_inputs(signature), *_single(signature)]}),
                _form("instances", {"type": "array", "minItems": 1}),
                _form("dataframe_split", {"type": "object"}),
                _form("dataframe_records", {"type": "array", "items": {"type": "object"}}),
                {"type": "array", "minItems": 1},
            ]
        }
        | _examples({"inputs": _named(signature)}, signature),
        "Predictions": _object({"predictions": _predictions(signature)}),
        "DeepaasPredictions": _object(
            {"status": {"const": "OK"}, "predictions": _predictions(signature)}
        ),
    }


def _get(summary: str, tag: str, text: Schema | None = None) -> Schema:
    content = {"text/plain": {"schema": text}} if text else _json({"type": "object"})
    answer = {"description": "The answer.", "content": content}
    return {"get": {"summary": summary, "tags": [tag], "responses": {"200": answer}}}


def _post(summary: str, tag: str, request: str, response: str) -> Schema:
    return {
        "post": {
            "summary": summary,
            "tags": [tag],
            "requestBody": {"required": True, "content": _json(_reference(request))},
            "responses": {
                "200": {"description": "The answer.", "content": _json(_reference(response))},
                **{code: _refusal(text) for code, text in _REFUSALS.items()},
            },
        }
    }


def _refusal(text: str) -> Schema:
    return {"description": text, "content": _json(_reference("Error"))}


def _invocations(service: Service, prefix: str) -> Schema:
    """Rows of numbers and text also come, and go, as lines."""
    described = _post(
        f"Predict with {service.name}.", _PLAIN, f"{prefix}Invocation", f"{prefix}Predictions"
    )
    lines = {"text/csv": {"schema": _TEXT}, "application/jsonlines": {"schema": _TEXT}}
    operation = described["post"]
    operation["requestBody"]["content"] |= lines
    operation["responses"]["406"] = _refusal(_UNACCEPTABLE)
    if all(tensor.dims for tensor in service.model.signature.outputs):
        operation["responses"]["200"]["content"] |= lines
    return described


def _form(name: str, schema: Schema) -> Schema:
    """One of the forms of a request to ``/invocations``."""
    return _object({name: schema, "params": _NO_PARAMETERS}, required=[name])


def _tensor(tensor: Tensor, parameters: Schema | None = None) -> Schema:
    """One tensor as the Open Inference Protocol writes it; its data may be flat or nested."""
    sizes = [
        {"const": dim} if type(dim) is int else {"type": "integer", "minimum": 0}
        for dim in tensor.dims
    ]
    shape: Schema = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    if sizes:
        shape["prefixItems"] = sizes
    properties: Schema = {
        "name": {"const": tensor.name},
        "shape": shape,
        "datatype": {"const": tensor.datatype},
        "data": {"type": "array"},
    }
    required = list(properties) if parameters is None else ["name", "shape", "datatype"]
    if parameters is not None:
        properties["parameters"] = parameters
    return _object(properties, required=required)


def _requested(signature: Signature) -> Schema:
    names = {"enum": signature.output_names}
    return _object({"name": names, "parameters": _PARAMETERS}, required=["name"])


def _inputs(signature: Signature) -> Schema:
    """An object with all inputs by their names, or with the one that stands for them."""
    forms = [_object({tensor.name: _nested(tensor) for tensor in signature.inputs})]
    if signature.instead:
        forms.append(_object({signature.instead.name: _nested(signature.instead)}))
    return forms[0] if len(forms) == 1 else {"oneOf": forms}


def _single(signature: Signature) -> list[Schema]:
    tensors = list(signature.inputs) if len(signature.inputs) == 1 else []
    tensors += [signature.instead] if signature.instead else []
    return [_nested(tensor) for tensor in tensors]


def _predictions(signature: Signature) -> Schema:
    if len(signature.outputs) == 1:
        return _nested(signature.outputs[0])
    return _object({tensor.name: _nested(tensor) for tensor in signature.outputs})


def _nested(tensor: Tensor) -> Schema:
    """Arrays in arrays."""
    kinds = {"b": "boolean", "O": "string", "f": "number"}
    schema: Schema = {"type": kinds.get(DATATYPES[tensor.datatype].kind, "integer")}
    for dim in reversed(tensor.dims):
        schema = {"type": "array", "items": schema}
        if type(dim) is int:
            schema |= {"minItems": dim, "maxItems": dim}
    return schema


def _known(signature: Signature) -> list[Tensor]:
    return list(signature.by_name.values())


def _examples(example: Any, signature: Signature) -> Schema:
    small = all(math.prod(_shape(tensor)) <= _EXAMPLE for tensor in signature.inputs)
    return {"examples": [example]} if small else {}


def _example(tensor: Tensor) -> Schema:
    shape = _shape(tensor)
    data = [_value(tensor)] * math.prod(shape)
    return {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data}


def _named(signature: Signature) -> Schema:
    examples: Schema = {}
    for tensor in signature.inputs:
        data = _value(tensor)
        for size in reversed(_shape(tensor)):
            data = [data] * size
        examples[tensor.name] = data
    return examples


def _value(tensor: Tensor) -> Any:
    kind = DATATYPES[tensor.datatype].kind
    return {"b": False, "O": tensor.example or "text", "f": 0.0}.get(kind, 0)


def _shape(tensor: Tensor) -> list[int]:
    return [dim if type(dim) is int else 1 for dim in tensor.dims]


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
