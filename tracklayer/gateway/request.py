"""A request as it comes in, and what is wrong with it."""

from __future__ import annotations

import httptools

from tracklayer.gateway.http1 import METHODS, Headers, joined, tokens

HEAD = 64 << 10
"""Bytes of the head of a request, of its trailers, and of what frames its chunks."""

FIELDS = 200
"""Header fields of a request."""


class Request:
    """One request.

    :ivar length: of its body; None if that comes in chunks.
    :ivar body: what came of it and was not passed on yet.
    :ivar whole: nothing more will come.
    :ivar taken: it is at work, or waits for that.
    :ivar offers: it would go on in another protocol.
    :ivar refusal: why it is not let in.
    """

    __slots__ = (
        "api_key",
        "authorization",
        "body",
        "expects",
        "headers",
        "keep_alive",
        "length",
        "method",
        "modern",
        "offers",
        "received",
        "refusal",
        "taken",
        "target",
        "whole",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.headers: Headers = []
        self.body: list[bytes] = []
        self.length: int | None = 0
        self.received = 0
        self.keep_alive = False
        self.modern = True
        self.expects = False
        self.offers = False
        self.whole = False
        self.taken = False
        self.authorization: bytes | None = None
        self.api_key: bytes | None = None
        self.refusal: tuple[int, str] | None = None

    def examine(self, parser: httptools.HttpRequestParser, limit: int) -> None:
        """Take what the parser knows when the head has come, and see what is wrong with it."""
        self.method = parser.get_method()
        self.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        self.modern = version == "1.1"
        self.offers = parser.should_upgrade()
        hosts = keys = chunked = size = 0
        for low, name, value in self.headers:
            size += len(name) + len(value)
            if low == b"host":
                hosts += 1
            elif low == b"content-length":
                self.length = int(value)
            elif low == b"transfer-encoding":
                chunked = True
                self.length = None
            elif low == b"expect":
                self.expects = True
            elif low == b"authorization":
                keys += self.authorization is not None
                self.authorization = value
            elif low == b"x-api-key":
                keys += self.api_key is not None
                self.api_key = value
        if version not in ("1.0", "1.1"):
            self.refusal = 505, f"HTTP/1.1 is spoken here, not HTTP/{version}"
            return
        if keys:  # the server behind would get the one that is not looked at
            self.refusal = 400, "a request has one Authorization and one X-API-Key at most"
            return
        self.refusal = self._wrong(hosts, bool(chunked), size + len(self.target), limit)

    def _wrong(self, hosts: int, chunked: bool, size: int, limit: int) -> tuple[int, str] | None:
        if self.method not in METHODS or self.target[:1] != b"/":
            return 400, "the gateway takes requests for a path, by the usual methods"
        if hosts > 1 or (self.modern and not hosts):
            return 400, "a request has exactly one Host"
        if chunked and not self.modern:
            return 400, "a body in chunks needs HTTP/1.1"
        if chunked and [*tokens(joined(self.headers, b"transfer-encoding"))][:-1]:
            return 501, "a body may come in chunks, but in no other transfer coding"
        if size > HEAD or len(self.headers) > FIELDS:
            return 431, f"the headers are more than {FIELDS} or larger than {HEAD} bytes"
        if self.length is not None and self.length > limit:
            return 413, too_large(limit)
        if self.expects and [*tokens(joined(self.headers, b"expect"))] != [b"100-continue"]:
            return 417, "the gateway knows no other expectation than 100-continue"
        return None


def too_large(limit: int) -> str:
    """What is said of a body beyond the limit."""
    return f"the body is larger than {limit} bytes"
