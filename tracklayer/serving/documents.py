"""The JSON of requests, read strictly. Where it is broken, the message names the field."""

from __future__ import annotations

import re
from typing import Any

import orjson

from tracklayer.serving.model import RequestError

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{},:]', re.DOTALL)
_NO_NUMBER = re.compile(r"-?(NaN|Infinity)", re.IGNORECASE)
_LOOKED_AT = 64 << 10
"""Characters up to an error that are looked through for its field; no more, because it takes
longer than the reading itself."""
_PARTS = 6
"""Names and numbers in the place of an error: no message is longer for a deeper one."""


def parse(text: bytes, what: str) -> Any:
    """What a JSON text says.

    :param what: what the message of a refusal calls the text.
    :raises RequestError: (400) it is not JSON; NaN and Infinity are not.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = place(error.doc[: error.pos]) if error.pos <= _LOOKED_AT else ""
        # The parser has read the sign before it sees what follows.
        odd = _NO_NUMBER.search(error.doc, max(0, error.pos - 1), error.pos + 10)
        # So it says it of an array in an array in an array.
        reason = str(error).replace("failed to allocate memory", "nested too deeply")
        if odd:
            reason = f"{odd[0]} is no number there: line {error.lineno} column {error.colno}"
        raise RequestError(
            400, f"{what} is not valid JSON{f' at {where}' if where else ''}: {reason}"
        ) from error


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    :raises RequestError: (400) it is not JSON, or not an object.
    """
    document = parse(body, "the body")
    if type(document) is not dict:
        raise RequestError(400, "the body must be a JSON object")
    return document


def place(text: str) -> str:
    """The field at the end of the beginning of a JSON text: ``inputs[0].data[3]``."""
    inside: list[str | int] = []
    key = ""
    for token in _TOKEN.finditer(text):
        sign = token[0]
        last = inside[-1] if inside else None
        if sign in "{[":
            inside.append("" if sign == "{" else 0)
        elif last is None:
            continue
        elif sign in "]}":
            inside.pop()
        elif sign == ",":
            inside[-1] = last + 1 if isinstance(last, int) else ""
        elif sign == ":" and isinstance(last, str):
            inside[-1] = key
        else:
            key = sign[1:101].removesuffix('"')
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside if part != ""]
    return "".join(parts[:_PARTS]).removeprefix(".")
