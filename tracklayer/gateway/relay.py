"""An answer on its way from a server to the caller."""

from __future__ import annotations

from tracklayer.gateway.backends import Link
from tracklayer.gateway.connections import Connection
from tracklayer.gateway.http1 import NOT_TO_CLIENT, answer_head, chunk, framing, joined, kept
from tracklayer.gateway.request import Request

BUFFERED = 1 << 20
"""Bytes of a body that are held in memory, so that one write sends it and it can be sent again."""


class Relay:
    """Passes one answer on: a small one when it is whole, a large one or one without a length as
    it comes. ``streaming``: the caller has the beginning already. ``sent``: bytes of the body."""

    __slots__ = ("_chunked", "_client", "_parts", "_request", "sent", "streaming")

    def __init__(self, client: Connection, request: Request) -> None:
        self._client = client
        self._request = request
        self._parts: list[bytes] = []
        self._chunked = False
        self.streaming = False
        self.sent = 0

    def restart(self) -> None:
        """Forget what came of an answer that is not passed on."""
        self._parts.clear()

    def bodiless(self, link: Link) -> bool:
        """Does the answer end with its head (RFC 9112, 6.3)?"""
        return self._request.method == b"HEAD" or link.status in (204, 304)

    def begin(self, link: Link, line: bytes) -> None:
        """Pass the head on, if the body is not waited for; ``line``: more of its fields."""
        length = link.length
        if length is not None and length <= BUFFERED:
            return
        self.streaming = True
        self._chunked = length is None and self._request.modern
        head = _head(link, line)
        if length is not None or self._chunked:
            head += framing(length)
        else:  # the end of the connection ends the body
            self._request.keep_alive = False
        self._client.start(head)

    def add(self, data: bytes) -> None:
        """A piece of the body."""
        if not self.streaming:
            self._parts.append(data)
            return
        self.sent += len(data)
        self._client.write(chunk(data) if self._chunked else data)

    def end(self) -> None:
        """The body is whole, and was passed on as it came."""
        if self._chunked:
            self._client.write(chunk(b""))
        self._client.finish()

    def whole(self, link: Link, line: bytes) -> tuple[bytes, bytes]:
        """Head, without its end, and body of an answer that was not passed on as it came."""
        if self.bodiless(link):
            # What its length would be; no body follows, whatever the server thinks.
            known = link.length is not None and link.status != 204
            return _head(link, line) + (framing(link.length) if known else b""), b""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.sent = len(body)
        return _head(link, line) + framing(self.sent), body


def _head(link: Link, line: bytes) -> bytes:
    lines = kept(link.headers, NOT_TO_CLIENT, joined(link.headers, b"connection"))
    return answer_head(link.status, lines + line)
