"""Open Inference Protocol, version 2, REST; tensors in JSON or, by its extension, as bytes.

Source: https://github.com/kserve/open-inference-protocol (``inference_rest.md``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

from tracklayer.serving import binary
from tracklayer.serving.documents import object_of
from tracklayer.serving.http import Headers, Reply, Route, Service, json_reply
from tracklayer.serving.model import Array, Call, Model, RequestError, Tensor
from tracklayer.serving.tensors import decode, encode

_REQUEST = frozenset({"id", "parameters", "inputs", "outputs", "model_name"})
"""KServe's client adds the model's name, as gRPC has it."""
_INPUT = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT = frozenset({"name", "parameters"})
_VALUES = (str, int, float, bool)
_NONE: frozenset[str] = frozenset()
_NOT_SERVED = frozenset(
    {"classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"}
)
"""Parameters of Triton's other extensions; without them the answer would mean something else."""


class Request(NamedTuple):
    """What an inference request asks for.

    :param feeds: input name -> its array.
    :param outputs: names of the wanted outputs.
    :param as_bytes: those of them that shall come as bytes behind the JSON.
    """

    feeds: dict[str, Array]
    outputs: list[str]
    as_bytes: frozenset[str]


def routes(service: Service, peers: Sequence[Service] = ()) -> dict[str, Route]:
    """Path -> what it answers, for one service.

    :param peers: all services of its server; default: there is no other.
    """
    peers = peers or (service,)

    def infer(body: bytes, headers: Headers, call: Call) -> Reply:
        text, blobs = binary.split(body, headers)
        document = object_of(text)
        if document.get("model_name", service.name) != service.name:
            raise RequestError(400, f"model_name: this is {service.name!r}")
        request = read(service.model, document, blobs)
        results = service.model.run(request.feeds, request.outputs, call)
        return _answer(service, document.get("id"), request, results)

    def ready() -> Reply:
        draining = any(peer.draining for peer in peers)
        return json_reply({"ready": not draining}, 503 if draining else 200)

    def model_ready() -> Reply:
        state = {"name": service.name, "ready": not service.draining}
        return json_reply(state, 503 if service.draining else 200)

    def model() -> Reply:
        signature = service.model.signature
        return json_reply(
            {
                "name": service.name,
                "versions": [peer.version for peer in peers if peer.name == service.name],
                "platform": service.model.platform,
                "inputs": [tensor.metadata() for tensor in signature.inputs],
                "outputs": [tensor.metadata() for tensor in signature.outputs],
            }
        )

    def server() -> Reply:
        return json_reply(server_metadata())

    table = {
        "/v2": Route(get=server),
        "/v2/health/live": Route(get=lambda: json_reply({"live": True}), probe=True),
        "/v2/health/ready": Route(get=ready, probe=True),
    }
    for base in (
        f"/v2/models/{service.name}",
        f"/v2/models/{service.name}/versions/{service.version}",
    ):
        table[base] = Route(get=model)
        table[f"{base}/ready"] = Route(get=model_ready)
        table[f"{base}/infer"] = Route(infer=infer)
    return table


def server_metadata() -> dict[str, Any]:
    """What the protocol tells about a server."""
    return {"name": "tracklayer", "version": version(), "extensions": [binary.EXTENSION]}


def read(
    model: Model, document: Mapping[str, Any], blobs: binary.Blobs = binary.NOTHING
) -> Request:
    """What the JSON object of an inference request, and the bytes behind it, ask for.

    :raises RequestError: (400) the request breaks the protocol or does not fit the model.
    """
    _check_keys(document, _REQUEST, "the request")
    if type(document.get("id", "")) is not str:
        raise RequestError(400, "id must be a string")
    feeds: dict[str, Array] = {}
    for index, item in enumerate(_list(document, "inputs", required=True)):
        where = f"inputs[{index}]"
        name = _name(item, _INPUT, where)
        tensor = input_of(model, name, item.get("datatype"), feeds, where)
        feeds[name] = _array(tensor, item, blobs, f"{where} {name!r}")
    blobs.end()
    model.signature.check(feeds)
    if "outputs" not in document and "parameters" not in document:
        return Request(feeds, model.signature.output_names, _NONE)
    return Request(feeds, *_wanted(model, document))


def input_of(
    model: Model, name: str, datatype: object, feeds: Mapping[str, Array], where: str
) -> Tensor:
    """The model's input that a request names.

    :param feeds: the inputs that came before it.
    :raises RequestError: (400) there is none, it is of another type, or it came before.
    """
    tensor = model.signature.by_name.get(name)
    if tensor is None:
        known = ", ".join(model.signature.by_name)
        raise RequestError(400, f"{where}: no input {name[:100]!r}; inputs: {known}")
    if name in feeds:
        raise RequestError(400, f"{where}: input {name!r} is given twice")
    if datatype != tensor.datatype:
        raise RequestError(400, f"{where} {name!r}: datatype must be {tensor.datatype!r}")
    return tensor


def check_output(model: Model, name: str, wanted: Collection[str], where: str) -> None:
    """
    :param wanted: the outputs that were asked for before it.
    :raises RequestError: (400) the model has no such output, or it was asked for before.
    """
    known = model.signature.output_names
    if name not in known:
        raise RequestError(400, f"{where}: no output {name[:100]!r}; outputs: {', '.join(known)}")
    if name in wanted:
        raise RequestError(400, f"{where}: output {name!r} is asked for twice")


def _array(tensor: Tensor, item: Mapping[str, Any], blobs: binary.Blobs, field: str) -> Array:
    if "parameters" not in item or binary.SIZE not in item["parameters"]:
        return decode(tensor, item.get("shape"), item.get("data"), field)
    if "data" in item:
        raise RequestError(400, f"{field}: either data or {binary.SIZE}, not both")
    data = blobs.take(item["parameters"][binary.SIZE], field)
    return binary.decode(tensor, item.get("shape"), data, field)


def _wanted(model: Model, document: Mapping[str, Any]) -> tuple[list[str], frozenset[str]]:
    """Names of the wanted outputs; those of them that shall come as bytes."""
    wanted: dict[str, bool] = {}
    default = _flag(document, "binary_data_output", False, "the request")
    for index, item in enumerate(_list(document, "outputs", required=False)):
        where = f"outputs[{index}]"
        name = _name(item, _OUTPUT, where)
        check_output(model, name, wanted, where)
        wanted[name] = _flag(item, "binary_data", default, where)
    wanted = wanted or dict.fromkeys(model.signature.output_names, default)
    return list(wanted), frozenset(name for name, as_bytes in wanted.items() if as_bytes)


def _answer(
    service: Service, identifier: str | None, request: Request, results: Sequence[Array]
) -> Reply:
    document: dict[str, Any] = {"model_name": service.name, "model_version": service.version}
    if identifier is not None:
        document["id"] = identifier
    by_name = {tensor.name: tensor for tensor in service.model.signature.outputs}
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for name, array in zip(request.outputs, results, strict=True):
        tensor = by_name[name]
        if name not in request.as_bytes:
            outputs.append(encode(tensor, array))
            continue
        blobs.append(binary.encode(tensor, array))
        head = {"name": name, "shape": array.shape, "datatype": tensor.datatype}
        outputs.append(head | {"parameters": {binary.SIZE: len(blobs[-1])}})
    document["outputs"] = outputs
    reply = json_reply(document)
    return binary.join(reply.body, blobs) if blobs else reply


def _list(document: Mapping[str, Any], key: str, *, required: bool) -> list[Any]:
    items = document.get(key) if required else document.get(key, [])
    if type(items) is not list:
        raise RequestError(400, f"{key} must be an array")
    return items


def _name(item: object, allowed: frozenset[str], where: str) -> str:
    if type(item) is not dict:
        raise RequestError(400, f"{where} must be an object")
    _check_keys(item, allowed, where)
    name = item.get("name")
    if type(name) is not str:
        raise RequestError(400, f"{where}: name must be a string")
    return name


def _flag(document: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    flag = document.get("parameters", {}).get(name, default)
    if type(flag) is not bool:
        raise RequestError(400, f"{where}: parameter {name} must be true or false")
    return flag


def _check_keys(document: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    if not allowed.issuperset(document):
        unknown, known = min(document.keys() - allowed), ", ".join(sorted(allowed))
        raise RequestError(400, f"{where}: unknown key {unknown[:100]!r}; allowed: {known}")
    if "parameters" in document:
        check_parameters(document["parameters"], where)


def check_parameters(parameters: object, where: str) -> None:
    """The protocol leaves their names open; they must be ones whose values can be ignored.

    :raises RequestError: (400) not strings, numbers and booleans by name, or of an extension that
        is not served.
    """
    if type(parameters) is not dict:
        raise RequestError(400, f"{where}: parameters must be an object")
    for name, value in parameters.items():
        if name in _NOT_SERVED:
            raise RequestError(400, f"{where}: parameter {name} is not served here")
        if type(value) not in _VALUES:
            raise RequestError(
                400, f"{where}: parameter {name[:100]!r} must be a string, a number or a boolean"
            )


@cache
def version() -> str:
    """Our version, or ``source`` where Tracklayer is not installed."""
    try:
        return metadata.version("tracklayer")
    except metadata.PackageNotFoundError:
        return "source"
