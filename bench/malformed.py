"""Requests to a model server that are wrong in one way each, the same for the same seed.

The model is that of :mod:`bench.echo`. Every request says whether it must be refused; what only may
be (a key that is there twice, a byte that was exchanged) must not break anything.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bench.echo import (
    BLOBS,
    INFER,
    INPUTS,
    INVOCATIONS,
    LENGTH,
    PREDICT,
    ROWS,
    VALUES,
    as_json,
    in_bytes,
    message_of,
    valid_request,
)

_FIT: dict[str, tuple[type, ...]] = {
    "numbers": (int, float),
    "halves": (int, float),
    "counts": (int,),
    "words": (str,),
    "flags": (bool,),
}
_ODD: list[Any] = [
    *(None, True, -1, 1.5, 2**63, 2**64, 10**400, 1e300, "", "x", "\0", [], {}, [[]], [None]),
    *({"a": 1}, [{}], [[[[1]]]], ["x"] * 50, {"numbers": 1}),
]
_WORDS = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"nan", b"0x10", b"01", b"+1", b"1.", b"'a'"]
_NO_TEXT = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\\ud800", b"\\x", b"\n", b"\0"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Malformed:
    """One request. ``what`` says in which way it is wrong; ``path`` is None for gRPC."""

    what: str
    path: str | None
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    refused: bool = True


def malformed(seed: int, number: int) -> Malformed:
    """The request of this number."""
    random = Random(f"{seed}-{number}")
    make = random.choices(list(_MAKERS), list(_MAKERS.values()))[0]
    return make(random)


def valid() -> list[Malformed]:
    """A request of each kind with nothing wrong, which must be answered."""
    text, blobs = in_bytes(valid_request(), set(INPUTS))
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    return [
        Malformed(what="valid", path=path, body=body, headers=headers, refused=False)
        for path, body, headers in (
            (INFER, as_json(valid_request()), {}),
            (INFER, text + b"".join(blobs), {LENGTH: str(len(text))}),
            (PREDICT, as_json(ROWS), {}),
            (INVOCATIONS, as_json({"inputs": ROWS}), {}),
            (INVOCATIONS, as_json({"dataframe_records": rows}), {}),
            (None, message_of(valid_request()).SerializeToString(), {}),
        )
    ]


def _wrong_field(random: Random) -> Malformed:
    """A tensor, or the request around it, that breaks the protocol."""
    request = valid_request()
    item = random.choice(request["inputs"])
    key = random.choice(
        ["name", "shape", "datatype", "data", "missing", "extra", "twice", "around"]
    )
    if key == "name":
        item["name"] = random.choice([*_ODD, "Numbers", "z" * 5000])
    elif key == "shape":
        item["shape"] = _wrong_shape(random, item["shape"])
    elif key == "datatype":
        known = ["FP32", "FP64", "INT64", "BYTES", "fp32", "BF16", *_ODD]
        item["datatype"] = random.choice([kind for kind in known if kind != item["datatype"]])
    elif key == "data":
        item["data"] = _wrong_data(random, item["name"], item["data"])
    elif key == "missing":
        del item[random.choice(list(item))]
    elif key == "extra":
        item[random.choice(["extra", "Data", "values"])] = random.choice(_ODD)
    elif key == "twice":
        request["inputs"].append(item)
    else:
        _wrong_around(random, request)
    return Malformed(what=f"field {key}", path=INFER, body=as_json(request))


def _wrong_around(random: Random, request: dict[str, Any]) -> None:
    scalars = (str, int, float)
    changes: list[tuple[str, Any]] = [
        ("id", random.choice([odd for odd in _ODD if type(odd) is not str])),
        ("inputs", random.choice(_ODD)),
        ("outputs", random.choice([odd for odd in _ODD if odd != []])),
        ("outputs", [{"name": "numbers_"}, {"name": "numbers_"}]),
        ("outputs", [{"name": random.choice(_ODD)}]),
        ("parameters", random.choice([odd for odd in _ODD if type(odd) is not dict])),
        (
            "parameters",
            {"a": random.choice([odd for odd in _ODD if not isinstance(odd, scalars)])},
        ),
        ("parameters", {"binary_data_output": random.choice([1, "true", 0.0])}),
        ("extra", random.choice(_ODD)),
        ("model_name", "another"),
    ]
    key, value = random.choice(changes)
    request[key] = value


def _wrong_shape(random: Random, shape: list[int]) -> Any:
    place = random.randrange(len(shape))
    wrong: list[Any] = list(shape)
    wrong[place] = random.choice(
        [-1, 0, 1, 3, 2**31, 2**62, 2**64, 1.0, 2.5, "2", None, True, [2], 10**300]
    )
    return random.choice([wrong, [*shape, 1], [*shape] * 20, [], [0, 2**62], *_ODD])


def _wrong_data(random: Random, name: str, data: list[Any]) -> Any:
    wrong: list[Any] = list(data)
    # A number that the type cannot hold, or a value of another kind.
    bad = [odd for odd in _ODD if type(odd) not in _FIT[name]]
    bad += {"numbers": [1e39, -1e300], "halves": [70000, 1e6], "counts": [2**63, 1.0]}.get(name, [])
    wrong[random.randrange(len(wrong))] = random.choice(bad)
    return random.choice([wrong, wrong, data[:-1], [*data, data[0]], [data], [[data]], {}, "x", 1])


def _deep(random: Random) -> Malformed:
    """Brackets without end, in the body or in a tensor."""
    depth = random.choice([33, 500, 1025, 50_000])
    nested = b"[" * depth + b"]" * random.choice([0, depth])
    if random.random() < 0.5:
        path = random.choice([INFER, PREDICT, INVOCATIONS])
        return Malformed(what="deep body", path=path, body=nested)
    body = as_json(valid_request()).replace(b'["a", "\\u00e9"]', nested)
    return Malformed(what="deep data", path=INFER, body=body)


def _no_json(random: Random) -> Malformed:
    """JSON that ends too early; numbers that JSON does not know; strings that are no UTF-8."""
    path, text = _any_json(random)
    what = random.choice(["cut", "cut", "no number", "no UTF-8"])
    if what == "cut":
        text = text[: random.randrange(len(text) - 1)]
    elif what == "no number":
        text = text.replace(b"3.25", random.choice(_WORDS))
    else:
        text = text.replace(b"\\u00e9", random.choice(_NO_TEXT))
    return Malformed(what=what, path=path, body=text)


def _any_json(random: Random) -> tuple[str, bytes]:
    """A path and a body with nothing wrong."""
    documents = [(INFER, valid_request()), (PREDICT, ROWS), (INVOCATIONS, {"inputs": ROWS})]
    path, document = random.choice(documents)
    return path, as_json(document)


def _perhaps(random: Random) -> Malformed:
    """Exchanged bytes and keys that are there twice: they may be meant so."""
    path, text = _any_json(random)
    body = bytearray(text)
    if random.random() < 0.3:
        twice = b"{" + bytes(body[1:-1]) + b"," + bytes(body[1:])
        return Malformed(what="twice", path=path, body=twice, refused=False)
    for _ in range(random.randint(1, 8)):
        place = random.randrange(len(body))
        how = random.randrange(3)
        if how == 0:
            body[place] = random.randrange(256)
        elif how == 1:
            del body[place]
        else:
            body[place:place] = random.randbytes(random.randint(1, 4))
    return Malformed(what="exchanged", path=path, body=bytes(body), refused=False)


def _wrong_bytes(random: Random) -> Malformed:
    """Binary tensors whose sizes, header or content are wrong."""
    names = set(random.sample(list(INPUTS), random.randint(1, len(INPUTS)))) | {"numbers"}
    request = valid_request()
    text, blobs = in_bytes(request, names)
    length: Any = len(text)
    how = random.choice(["header", "size", "cut", "more", "value", "both"])
    item = random.choice([each for each in request["inputs"] if each["name"] in names])
    if how == "header":
        wrong = [length - 1, length + 1, 0, -length, 2**64, 10**30, "x", "1.0", "", "0x10"]
        length = random.choice(wrong)
    elif how == "size":
        size = item["parameters"]["binary_data_size"]
        wrong = [size + 1, size - 1, -size, 0, 2**63, 2**64, 1.0, "8", None, True, [size]]
        item["parameters"]["binary_data_size"] = random.choice(wrong)
        text = as_json(request)
        length = len(text)
    elif how == "cut":
        blobs[-1] = blobs[-1][: random.randrange(len(blobs[-1]))]
    elif how == "more":
        blobs.append(random.randbytes(random.randint(1, 100)))
    elif how == "both":
        item["data"] = VALUES[item["name"]]
        text = as_json(request)
        length = len(text)
    else:
        names_in_order = [each["name"] for each in request["inputs"] if each["name"] in names]
        blobs = [_wrong_blob(random, name) for name in names_in_order]
    return Malformed(
        what=f"bytes {how}",
        path=INFER,
        body=text + b"".join(blobs),
        headers={LENGTH: str(length), "content-type": "application/octet-stream"},
    )


def _wrong_blob(random: Random, name: str) -> bytes:
    """As many bytes with a value that the type does not have; none for integers."""
    if name == "words":
        lengths = [(2, 2), (0, 0), (2**32 - 1, 2), (1, 2**31)]
        first, second = random.choice(lengths)
        return struct.pack("<I1sI2s", first, b"a", second, b"\xff\xff")
    if name == "flags":
        return bytes([random.randint(2, 255), 0])
    bad = random.choice([float("nan"), float("inf"), float("-inf")])
    if name == "numbers":
        return struct.pack("<8f", bad, *VALUES[name][1:])
    return struct.pack("<2e", 0.5, bad) if name == "halves" else BLOBS[name]


def _wrong_table(random: Random) -> Malformed:
    """The forms of MLflow and SageMaker."""
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    columns = list(ROWS)
    data = [list(row.values()) for row in rows]
    name = random.choice(columns)
    worse = deepcopy(rows)
    worse[random.randrange(2)][name] = _not_fitting(random, name)
    short = [data[0], data[1][:-1]]
    documents: list[Any] = [
        {"inputs": ROWS | {name: _not_fitting(random, name)}},
        {"inputs": {key: value for key, value in ROWS.items() if key != name}},
        {"inputs": ROWS | {"z": 1}},
        {"inputs": random.choice(_ODD)},
        {"instances": worse},
        {"instances": random.choice(_ODD)},
        {"instances": [*rows, random.choice([odd for odd in _ODD if type(odd) is not dict])]},
        {"dataframe_records": worse},
        {"dataframe_records": random.choice(_ODD)},
        {"dataframe_split": {"columns": columns, "data": short}},
        {"dataframe_split": {"columns": [*columns[:-1], "z"], "data": data}},
        {"dataframe_split": {"columns": [*columns[:-1], columns[0]], "data": data}},
        {"dataframe_split": {"columns": random.choice(_ODD), "data": data}},
        {"dataframe_split": {"columns": columns, "data": random.choice(_ODD)}},
        {"dataframe_split": random.choice(_ODD)},
        {"inputs": ROWS, "instances": rows},
        {"inputs": ROWS, "params": {"a": 1}},
        {"inputs": ROWS, "extra": random.choice(_ODD)},
        random.choice(_ODD),
    ]
    return Malformed(what="table", path=INVOCATIONS, body=as_json(random.choice(documents)))


def _wrong_lines(random: Random) -> Malformed:
    """CSV and lines of JSON, and types that are neither."""
    good = "numbers,counts\n1,2\n"  # the model's other inputs are not among the columns
    texts = [good, "", "\n\n", '"', '"a\n1,"', "a,b\n1,2\n", "1\n2\n", "\0\n", "é,\n", "," * 2000]
    body = random.choice([*(text.encode() for text in texts), b"\xff\xfe1,2", random.randbytes(60)])
    media = random.choice(
        ["text/csv", "application/jsonlines", "application/json", "image/png", ""]
    )
    headers = {"content-type": media} if media else {}
    if random.random() < 0.2:
        headers = {"accept": "image/png"}
        body = as_json({"inputs": ROWS})
    return Malformed(what="lines", path=INVOCATIONS, body=body, headers=headers)


def _wrong_prediction(random: Random) -> Malformed:
    """DEEPaaS takes the inputs by their names."""
    name = random.choice(list(ROWS))
    documents: list[Any] = [
        ROWS | {name: _not_fitting(random, name)},
        {key: value for key, value in ROWS.items() if key != name},
        ROWS | {"z": random.choice(_ODD)},
        random.choice(_ODD),
    ]
    return Malformed(what="prediction", path=PREDICT, body=as_json(random.choice(documents)))


def _not_fitting(random: Random, name: str) -> Any:
    """No input of this name is like that."""
    bad = [odd for odd in _ODD if type(odd) not in _FIT[name] and odd not in ([], ["x"] * 50)]
    return random.choice([each for each in bad if each != [[]]])


def _wrong_message(random: Random) -> Malformed:
    """gRPC: messages that break the protocol, and bytes that are none."""
    request = valid_request()
    raw = random.random() < 0.5
    how = random.choice(["tensor", "contents", "raw", "model", "outputs", "cut", "noise"])
    message = message_of(request, raw=raw)
    item = message.inputs[random.randrange(len(INPUTS))]
    if how == "tensor":
        changes: list[Callable[[], Any]] = [
            lambda: setattr(item, "name", random.choice(["", "z", "\0", "n" * 5000])),
            lambda: setattr(item, "datatype", random.choice(["", "FP8", "fp32", "x" * 999])),
            lambda: item.shape.append(random.choice([0, 1, -1, 2**62])),
            lambda: item.shape.__setitem__(0, random.choice([0, 1, 3, -1, -(2**63), 2**62])),
            lambda: item.ClearField("shape"),
            lambda: item.parameters["a"].Clear(),
            lambda: message.inputs.append(item),
            lambda: message.inputs.remove(item),
        ]
        random.choice(changes)()
    elif how == "contents":
        item.contents.Clear()
        item.contents.uint64_contents.append(random.randrange(2**64))
    elif how == "raw":
        message.raw_input_contents.append(random.randbytes(8))
    elif how == "model":
        message.model_name = random.choice(["", "z", "\0", "m/", "m" * 9999])
    elif how == "outputs":
        message.outputs.append(message.outputs[0])
    data: bytes = message.SerializeToString()
    if how == "cut":
        # The last field is the bytes of the inputs or a name: a part of it is no message.
        data = data[: -random.randint(1, 2)]
    elif how == "noise":
        data = random.randbytes(random.randint(0, 200))
    return Malformed(what=f"message {how}", path=None, body=data)


_MAKERS: dict[Callable[[Random], Malformed], int] = {
    _wrong_field: 6,
    _deep: 1,
    _no_json: 4,
    _perhaps: 3,
    _wrong_bytes: 4,
    _wrong_table: 4,
    _wrong_lines: 2,
    _wrong_prediction: 2,
    _wrong_message: 3,
}
"""What makes requests, and how often."""
