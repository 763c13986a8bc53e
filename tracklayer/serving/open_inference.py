"""Open Inference Protocol, version 2, REST with JSON tensors.

Source: https://github.com/kserve/open-inference-protocol (``inference_rest.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

import orjson

from tracklayer.serving.http import Headers, Reply, Route, Service, json_reply
from tracklayer.serving.model import Array, Call, Model, RequestError
from tracklayer.serving.tensors import decode, encode

_REQUEST = frozenset({"id", "parameters", "inputs", "outputs"})
_INPUT = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT = frozenset({"name", "parameters"})


def routes(service: Service) -> dict[str, Route]:
    """Path -> what it answers, for one service."""

    def infer(body: bytes, headers: Headers, call: Call) -> Reply:
        if b"inference-header-content-length" in headers:
            raise RequestError(
                415, "binary tensor data is not served here; send the tensors as JSON"
            )
        request = object_of(body)
        feeds, names = read(service.model, request)
        results = service.model.run(feeds, names, call)
        outputs = {tensor.name: tensor for tensor in service.model.signature.outputs}
        document: dict[str, Any] = {"model_name": service.name, "model_version": service.version}
        if "id" in request:
            document["id"] = request["id"]
        document["outputs"] = [
            encode(outputs[name], array) for name, array in zip(names, results, strict=True)
        ]
        return json_reply(document)

    def ready() -> Reply:
        return json_reply({"ready": not service.draining}, 503 if service.draining else 200)

    def model_ready() -> Reply:
        state = {"name": service.name, "ready": not service.draining}
        return json_reply(state, 503 if service.draining else 200)

    def model() -> Reply:
        signature = service.model.signature
        return json_reply(
            {
                "name": service.name,
                "versions": [service.version],
                "platform": service.model.platform,
                "inputs": [tensor.metadata() for tensor in signature.inputs],
                "outputs": [tensor.metadata() for tensor in signature.outputs],
            }
        )

    def server() -> Reply:
        return json_reply({"name": "tracklayer", "version": _version(), "extensions": []})

    table = {
        "/v2": Route(get=server),
        "/v2/health/live": Route(get=lambda: json_reply({"live": True})),
        "/v2/health/ready": Route(get=ready),
    }
    for base in (
        f"/v2/models/{service.name}",
        f"/v2/models/{service.name}/versions/{service.version}",
    ):
        table[base] = Route(get=model)
        table[f"{base}/ready"] = Route(get=model_ready)
        table[f"{base}/infer"] = Route(infer=infer)
    return table


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    :raises RequestError: (400) it is not JSON (NaN and Infinity are not), or not an object.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not valid JSON: {error}") from error
    if type(document) is not dict:
        raise RequestError(400, "the body must be a JSON object")
    return document


def read(model: Model, request: Mapping[str, Any]) -> tuple[dict[str, Array], list[str]]:
    """The input arrays and the names of the wanted outputs of an inference request.

    :raises RequestError: (400) the request breaks the protocol or does not fit the model.
    """
    _keys(request, _REQUEST, "the request")
    if type(request.get("id", "")) is not str:
        raise RequestError(400, "id must be a string")
    feeds: dict[str, Array] = {}
    by_name = model.signature.by_name
    for index, item in enumerate(_list(request, "inputs", required=True)):
        where = f"inputs[{index}]"
        name = _name(item, _INPUT, where)
        if name not in by_name:
            raise RequestError(400, f"{where}: no input {name[:100]!r}; inputs: {_known(by_name)}")
        if name in feeds:
            raise RequestError(400, f"{where}: input {name!r} is given twice")
        tensor = by_name[name]
        if item.get("datatype") != tensor.datatype:
            raise RequestError(400, f"{where} {name!r}: datatype must be {tensor.datatype!r}")
        feeds[name] = decode(tensor, item.get("shape"), item.get("data"), f"{where} {name!r}")
    model.signature.check(feeds)
    wanted: list[str] = []
    known = model.signature.output_names
    for index, item in enumerate(_list(request, "outputs", required=False)):
        where = f"outputs[{index}]"
        name = _name(item, _OUTPUT, where)
        if name not in known:
            raise RequestError(400, f"{where}: no output {name[:100]!r}; outputs: {_known(known)}")
        if name in wanted:
            raise RequestError(400, f"{where}: output {name!r} is asked for twice")
        wanted.append(name)
    return feeds, wanted or known


def _list(request: Mapping[str, Any], key: str, *, required: bool) -> list[Any]:
    items = request.get(key) if required else request.get(key, [])
    if type(items) is not list:
        raise RequestError(400, f"{key} must be an array")
    return items


def _name(item: object, allowed: frozenset[str], where: str) -> str:
    if type(item) is not dict:
        raise RequestError(400, f"{where} must be an object")
    _keys(item, allowed, where)
    name = item.get("name")
    if type(name) is not str:
        raise RequestError(400, f"{where}: name must be a string")
    return name


def _keys(document: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    if unknown := document.keys() - allowed:
        raise RequestError(
            400, f"{where}: unknown key {min(unknown)[:100]!r}; allowed: {_known(sorted(allowed))}"
        )
    if type(document.get("parameters", {})) is not dict:
        raise RequestError(400, f"{where}: parameters must be an object")


def _known(names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(names)


@cache
def _version() -> str:
    try:
        return metadata.version("tracklayer")
    except metadata.PackageNotFoundError:
        return "source"
