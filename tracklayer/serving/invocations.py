"""``/invocations`` and ``/ping``: the endpoint that SageMaker's and MLflow's clients call.

Bodies: ``{"instances": [...]}`` (rows), ``{"inputs": ...}`` (columns by input name, or one tensor),
and ``text/csv`` (rows of the only input, or one value a row where that has one axis; a line of
column names may come first, for text that of the input). The answer is
``{"predictions": ...}``: nested arrays, by output name where the model has several outputs.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from tracklayer.serving.http import Headers, Reply, Route, Service, json_reply
from tracklayer.serving.model import DATATYPES, Array, Call, RequestError, Signature, Tensor
from tracklayer.serving.open_inference import object_of
from tracklayer.serving.tensors import decode, shape_of, values


def routes(service: Service) -> dict[str, Route]:
    """Path -> what it answers, for one service."""

    def invoke(body: bytes, headers: Headers, call: Call) -> Reply:
        signature = service.model.signature
        feeds = _feeds(signature, body, headers.get(b"content-type", b"application/json"))
        signature.check(feeds)
        results = service.model.run(feeds, signature.output_names, call)
        outputs = {
            tensor.name: values(tensor, array)
            for tensor, array in zip(signature.outputs, results, strict=True)
        }
        only = len(outputs) == 1
        return json_reply({"predictions": next(iter(outputs.values())) if only else outputs})

    def ping() -> Reply:
        return json_reply({}, 503 if service.draining else 200)

    return {"/invocations": Route(infer=invoke), "/ping": Route(get=ping)}


def _feeds(signature: Signature, body: bytes, content_type: bytes) -> dict[str, Array]:
    media = content_type.partition(b";")[0].strip().lower()
    if media == b"text/csv":
        return _csv(signature, body)
    if media != b"application/json":
        raise RequestError(
            415,
            f"content type {media.decode('latin-1')[:100]!r} is not served; "
            "send application/json or text/csv",
        )
    request = object_of(body)
    if request.keys() == {"instances"}:
        return _instances(signature, request["instances"])
    if request.keys() == {"inputs"}:
        return _inputs(signature, request["inputs"])
    raise RequestError(400, "the body must be an object with one key: 'instances' or 'inputs'")


def _instances(signature: Signature, rows: object) -> dict[str, Array]:
    if type(rows) is not list or not rows:
        raise RequestError(400, "instances must be an array of rows, one at least")
    if type(rows[0]) is not dict:
        return {_only(signature, "instances").name: _array(signature.inputs[0], rows, "instances")}
    names = signature.by_name.keys()
    for index, row in enumerate(rows):
        if type(row) is not dict or row.keys() != names:
            raise RequestError(
                400, f"instances[{index}] must be an object with the keys {', '.join(names)}"
            )
    return {
        name: _array(tensor, [row[name] for row in rows], f"instances {name!r}")
        for name, tensor in signature.by_name.items()
    }


def _inputs(signature: Signature, inputs: object) -> dict[str, Array]:
    if type(inputs) is not dict:
        return {_only(signature, "inputs").name: _array(signature.inputs[0], inputs, "inputs")}
    if unknown := inputs.keys() - signature.by_name.keys():
        known = ", ".join(signature.by_name)
        raise RequestError(400, f"inputs: no input {min(unknown)[:100]!r}; inputs: {known}")
    return {
        name: _array(signature.by_name[name], data, f"inputs {name!r}")
        for name, data in inputs.items()
    }


def _csv(signature: Signature, body: bytes) -> dict[str, Array]:
    tensor = _only(signature, "text/csv")
    kind = DATATYPES[tensor.datatype].kind
    if kind == "b":
        raise RequestError(415, "text/csv cannot carry BOOL; send application/json")
    convert = {"f": float, "O": str}.get(kind, int)
    try:
        lines = io.StringIO(body.decode(), newline="")
        rows = [row for row in csv.reader(lines, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(400, f"the body is not CSV in UTF-8: {error}") from error
    if tensor.datatype == "BYTES" and rows[:1] == [[tensor.name]]:
        rows = rows[1:]
    table: list[list[Any]] = []
    for index, row in enumerate(rows):
        try:
            table.append([convert(cell) for cell in row])
        except ValueError as error:
            if index == 0 and len(rows) > 1:
                continue  # column names, as MLflow's clients send them
            raise RequestError(400, f"row {index + 1}: {error}") from error
    if not table:
        raise RequestError(400, "the body holds no row")
    # A model that takes a value a row gets the column.
    data = [row[0] for row in table] if len(tensor.dims) == 1 == max(map(len, table)) else table
    return {tensor.name: _array(tensor, data, "the table")}


def _only(signature: Signature, what: str) -> Tensor:
    if len(signature.inputs) != 1:
        known = ", ".join(signature.by_name)
        raise RequestError(400, f"{what}: the model has several inputs, name them: {known}")
    return signature.inputs[0]


def _array(tensor: Tensor, data: object, field: str) -> Array:
    return decode(tensor, shape_of(data, field), data, field)
