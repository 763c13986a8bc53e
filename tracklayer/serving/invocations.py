"""``/invocations`` and ``/ping``: the endpoint that SageMaker's and MLflow's clients call.

And ``/health`` and ``/version``, which MLflow's servers have too; and what the clients of both take
for granted: ``/endpoints/<name>/invocations``, to which SageMaker's runtime client and MLflow's
deployment client write, and ``/api/2.0/endpoints/``, where the latter looks what there is.

Bodies:

- ``application/json``: an object with one of ``instances`` (rows), ``inputs`` (columns by input
  name, or one tensor), ``dataframe_split`` and ``dataframe_records``; or an array of rows.
- ``application/jsonlines``: a row a line.
- ``text/csv``: a row a line, with or without names of columns.

The answer is ``{"predictions": ...}``: nested arrays, by output name where the model has several
outputs. ``Accept: text/csv`` or ``application/jsonlines`` gives a line a row instead; weights
(``;q=0.5``) count as in RFC 9110, 12.4.2 and 12.5.1.

Sources: "Deploy MLflow Model as a Local Inference Server" in MLflow's documentation; "Common Data
Formats for Inference" and "InvokeEndpoint" in Amazon SageMaker's;
``mlflow/deployments/server/constants.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import orjson

from tracklayer.serving import tables
from tracklayer.serving.documents import parse
from tracklayer.serving.http import Headers, Reply, Route, Service, json_reply
from tracklayer.serving.model import Array, Call, RequestError, Signature
from tracklayer.serving.open_inference import version
from tracklayer.serving.tensors import values

_JSON, _LINES, _CSV = b"application/json", b"application/jsonlines", b"text/csv"
_ENDPOINTS = "/api/2.0/endpoints/"
_SERVED = "application/json, application/jsonlines or text/csv"
_FRAME = frozenset({"columns", "index", "data"})
_WEIGHT = re.compile(rb"0?\.\d+|0\.?|1(\.0*)?")
"""Java's own client begins one with the point."""


def routes(service: Service, peers: Sequence[Service] = ()) -> dict[str, Route]:
    """Path -> what it answers, for one service.

    :param peers: all services of its server; default: there is no other.
    """

    def invoke(body: bytes, headers: Headers, call: Call) -> Reply:
        signature = service.model.signature
        write = _writer(headers.get(b"accept", b""))
        feeds = _feeds(signature, body, headers.get(b"content-type", _JSON))
        signature.check(feeds)
        return write(signature, service.model.run(feeds, signature.output_names, call))

    def ping() -> Reply:
        return json_reply({}, 503 if any(peer.draining for peer in peers or (service,)) else 200)

    def endpoint(peer: Service) -> dict[str, object]:
        """As MLflow's ``deployments.server.config.Endpoint`` has it, below the client's address."""
        return {
            "name": peer.name,
            "endpoint_type": peer.model.platform,
            "model": {"name": peer.name, "provider": "tracklayer"},
            "endpoint_url": _endpoint(peer.name),
            "limit": None,
        }

    def endpoints() -> Reply:
        by_name = {peer.name: peer for peer in reversed(peers or (service,))}
        return json_reply({"endpoints": [endpoint(peer) for peer in by_name.values()]})

    return {
        "/invocations": Route(infer=invoke),
        _endpoint(service.name): Route(infer=invoke),
        _ENDPOINTS: Route(get=endpoints),
        f"{_ENDPOINTS}{service.name}": Route(get=lambda: json_reply(endpoint(service))),
        "/ping": Route(get=ping, probe=True),
        "/health": Route(get=ping, probe=True),
        "/version": Route(get=lambda: Reply(200, version().encode(), "text/plain")),
    }


def _endpoint(name: str) -> str:
    return f"/endpoints/{name}/invocations"


def predictions(signature: Signature, results: Sequence[Array]) -> object:
    """The only output's values, or those of all by their names, for orjson with NumPy.

    :raises RequestError: (500) the model gave a value that JSON cannot carry.
    """
    outputs = {
        tensor.name: values(tensor, array)
        for tensor, array in zip(signature.outputs, results, strict=True)
    }
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def feeds_of(signature: Signature, inputs: object) -> dict[str, Array]:
    """The inputs by their names, or the only one, as nested arrays.

    :raises RequestError: (400) they do not fit the model.
    """
    if type(inputs) is not dict:
        tensor = tables.only(signature, inputs, "inputs")
        return {tensor.name: tables.array_of(tensor, inputs, "inputs")}
    if unknown := inputs.keys() - signature.by_name.keys():
        known = ", ".join(signature.by_name)
        raise RequestError(400, f"inputs: no input {min(unknown)[:100]!r}; inputs: {known}")
    return {
        name: tables.array_of(signature.by_name[name], data, f"inputs {name!r}")
        for name, data in inputs.items()
    }


def _feeds(signature: Signature, body: bytes, content_type: bytes) -> dict[str, Array]:
    media = _media(content_type)
    if media == _CSV:
        return tables.read_csv(signature, body)
    if media == _LINES:
        lines = enumerate(body.splitlines(), 1)
        rows = [parse(line, f"line {number}") for number, line in lines if line.strip()]
        return _instances(signature, rows)
    if media != _JSON:
        raise RequestError(
            415,
            f"content type {media.decode('latin-1')[:100]!r} is not served; send {_SERVED}",
        )
    document = parse(body, "the body")
    return _instances(signature, document) if type(document) is list else _form(signature, document)


def _form(signature: Signature, document: object) -> dict[str, Array]:
    forms = {
        "instances": _instances,
        "inputs": feeds_of,
        "dataframe_split": _split,
        "dataframe_records": _records,
    }
    given = document.keys() - {"params"} if type(document) is dict else set()
    if type(document) is not dict or len(given) != 1 or not given <= forms.keys():
        raise RequestError(
            400, f"the body must be an object with one key of {', '.join(map(repr, forms))}"
        )
    if document.get("params") not in (None, {}):
        raise RequestError(400, "params: this model takes no parameters beside its inputs")
    form = given.pop()
    return forms[form](signature, document[form])


def _instances(signature: Signature, rows: object) -> dict[str, Array]:
    if type(rows) is not list or not rows:
        raise RequestError(400, "instances must be an array of rows, one at least")
    if type(rows[0]) is not dict:
        tensor = tables.only(signature, rows, "instances")
        return {tensor.name: tables.array_of(tensor, rows, "instances")}
    names = {tensor.name for tensor in tables.named(signature, rows[0]) or signature.inputs}
    for index, row in enumerate(rows):
        if type(row) is not dict or row.keys() != names:
            known = ", ".join(tensor.name for tensor in signature.inputs)
            raise RequestError(400, f"instances[{index}] must be an object with the keys {known}")
    return {
        name: tables.array_of(
            signature.by_name[name], [row[name] for row in rows], f"instances {name!r}"
        )
        for name in rows[0]
    }


def _split(signature: Signature, frame: object) -> dict[str, Array]:
    """A data frame as pandas writes it with ``orient="split"``."""
    if type(frame) is not dict or not {"columns", "data"} <= frame.keys() <= _FRAME:
        raise RequestError(400, "dataframe_split must be an object with the keys columns and data")
    columns, rows = frame["columns"], frame["data"]
    if type(columns) is not list or type(rows) is not list:
        raise RequestError(400, "dataframe_split: columns and data must be arrays")
    # pandas numbers the columns of a frame that has no names for them.
    names = [str(name) if type(name) is int else name for name in columns]
    if set(map(type, names)) - {str}:
        raise RequestError(400, "dataframe_split: columns must be strings")
    if set(map(type, rows)) - {list}:
        raise RequestError(400, "dataframe_split: data must be an array of arrays")
    return tables.feeds_of(signature, names, rows)


def _records(signature: Signature, records: object) -> dict[str, Array]:
    """A data frame as pandas writes it with ``orient="records"``."""
    if type(records) is not list or not records or type(records[0]) is not dict:
        raise RequestError(400, "dataframe_records must be an array of objects, one at least")
    columns = list(records[0])
    for index, record in enumerate(records):
        if type(record) is not dict or record.keys() != records[0].keys():
            raise RequestError(
                400,
                f"dataframe_records[{index}] must be an object with the keys of the first: "
                f"{', '.join(columns)[:300]}",
            )
    rows = [[record[name] for name in columns] for record in records]
    return tables.feeds_of(signature, columns, rows)


@lru_cache(32)  # a client sends the same with each request
def _writer(accept: bytes) -> Callable[[Signature, Sequence[Array]], Reply]:
    """What writes the answer that is wanted most. Of equals it is the one whose range comes first,
    and JSON where they are in one range.

    :raises RequestError: (406) none is wanted, (400) a weight is none.
    """
    writers = {_JSON: _json_reply, _LINES: _lines_reply, _CSV: _csv_reply}
    wanted: dict[bytes, tuple[float, int]] = {}
    for place, each in enumerate(accept.split(b",") if accept.strip(b", \t") else [b"*/*"]):
        wanted.setdefault(_media(each), (_weight(each), -place))

    def weight(media: bytes) -> tuple[float, int]:
        ranges = (media, media.partition(b"/")[0] + b"/*", b"*/*")  # the most specific one decides
        return next((wanted[each] for each in ranges if each in wanted), (0.0, 0))

    best = max(writers, key=weight)
    if not weight(best)[0]:
        raise RequestError(406, f"accept: answers are {_SERVED}")
    return writers[best]


def _weight(media_range: bytes) -> float:
    _, given, rest = b"".join(media_range.lower().split()).partition(b";q=")
    text = rest.partition(b";")[0] if given else b"1"
    if not _WEIGHT.fullmatch(text):
        raise RequestError(400, f"accept: {text.decode('latin-1')[:100]!r} is no weight up to 1")
    return float(text)


def _json_reply(signature: Signature, results: Sequence[Array]) -> Reply:
    return json_reply({"predictions": predictions(signature, results)})


def _csv_reply(signature: Signature, results: Sequence[Array]) -> Reply:
    return Reply(200, tables.write_csv(signature, results), f"{_CSV.decode()}; charset=utf-8")


def _lines_reply(signature: Signature, results: Sequence[Array]) -> Reply:
    lines = map(orjson.dumps, tables.rows_of(signature, results))
    return Reply(200, b"".join(line + b"\n" for line in lines), _LINES.decode())


def _media(header: bytes) -> bytes:
    return header.partition(b";")[0].strip().lower()
