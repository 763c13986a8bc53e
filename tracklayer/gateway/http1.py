"""Messages of HTTP/1.1 as bytes: what of them is passed on, and how they are framed.

RFC 9112. The framing of a message is always written anew, never copied: that is what keeps
requests from being smuggled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes, bytes]]
"""Name in lower case, name as it was written, value."""

VERSION_HEADER = "X-Tracklayer-Version"
CALLER_HEADER = "X-Tracklayer-Caller"
PASSAGE_HEADER = "X-Tracklayer-Passage"
"""What a proxy in front of this one found out about a request; see ``passage.py``."""

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""RFC 9110, 9.2.2: to do one of these twice is to do it once."""

# RFC 9110, 7.6.1: fields of one connection, which a proxy does not pass on.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What a client says about who it is: the gateway says it instead.
_SAID_BY_GATEWAY = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-api-key",
        CALLER_HEADER.lower().encode(),
        PASSAGE_HEADER.lower().encode(),
    }
)
NOT_TO_BACKEND = _HOP_BY_HOP | _SAID_BY_GATEWAY | {b"expect", b"content-length"}
NOT_TO_CLIENT = _HOP_BY_HOP | {b"server", b"content-length", VERSION_HEADER.lower().encode()}

_SERVER = b"Server: tracklayer\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


def kept(headers: Headers, dropped: frozenset[bytes], connection: bytes | None) -> bytes:
    """The lines of ``headers`` but for ``dropped`` and what the field ``Connection`` names."""
    if connection is not None and connection.lower() not in (b"keep-alive", b"close"):
        dropped = dropped | {token.strip().lower() for token in connection.split(b",")}
    return b"".join(
        [b"%b: %b\r\n" % (name, value) for low, name, value in headers if low not in dropped]
    )


def framing(length: int | None) -> bytes:
    """The field that says where a body ends; ``length`` None: in chunks."""
    return (
        b"Transfer-Encoding: chunked\r\n" if length is None else b"Content-Length: %d\r\n" % length
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a body in chunks; empty: its end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer_head(status: int, lines: bytes) -> bytes:
    """The first line of an answer, who answers, and the fields ``lines``; not its end."""
    start = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
    return start + _SERVER + lines


def own_answer(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json; charset=utf-8",
) -> tuple[bytes, bytes]:
    """Head, without its end, and body of an answer by the gateway itself."""
    fields = {"Date": formatdate(usegmt=True), "Content-Type": content_type, **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
    return answer_head(status, lines + framing(len(body))), body


def document(content: Any) -> bytes:
    """JSON."""
    return json.dumps(content, ensure_ascii=False).encode()


def error_document(message: str) -> bytes:
    """An error in the form of the Open Inference Protocol."""
    return document({"error": message})


def first(headers: Headers, name: bytes) -> bytes | None:
    """The value of a field, in its first line."""
    for low, _, value in headers:
        if low == name:
            return value
    return None


def joined(headers: Headers, name: bytes) -> bytes | None:
    """The value of a list field, all its lines."""
    values = [value for low, _, value in headers if low == name]
    return b",".join(values) if values else None


def tokens(value: bytes | None) -> Iterable[bytes]:
    """The members of a list field, in lower case."""
    return [token.strip().lower() for token in value.split(b",")] if value else []
