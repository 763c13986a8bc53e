"""What the application and the protocols share: a route, its answer, and the service behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import orjson

from tracklayer.serving.model import Call, Model


class Reply(NamedTuple):
    """An answer: HTTP status, body and headers beside the content type."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


@dataclass(slots=True)
class Service:
    """One version of a model under its name. ``draining``: it takes no new requests."""

    name: str
    version: str
    model: Model
    draining: bool = False


Headers: TypeAlias = Mapping[bytes, bytes]
"""Request headers; names in lower case."""

CALLER = b"x-tracklayer-caller"
"""The header in which the gateway says who asks."""

Get: TypeAlias = Callable[[], Reply]
"""Answers at once, in the event loop."""

Infer: TypeAlias = Callable[[bytes, Headers, Call], Reply]
"""Answers the body of a POST; computes, so it may run in a thread.

:raises tracklayer.serving.model.RequestError: the request is not answered.
"""


class Route(NamedTuple):
    """What a path answers: exactly one of the first two.

    :param probe: it says only whether the server is up, which needs no key.
    """

    get: Get | None = None
    infer: Infer | None = None
    probe: bool = False


def json_reply(document: Mapping[str, Any], status: int = 200) -> Reply:
    """A reply with a JSON body; NumPy arrays are written as they are."""
    return Reply(status, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def error_reply(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """A refusal in the form that all protocols share: ``{"error": message}``."""
    return json_reply({"error": message}, status)._replace(headers=headers or {})
