"""Requests as they come in on a connection: whole and admitted, or given up.

RFC 9112; parsed by llhttp (``httptools``), which refuses whatever could be read in two ways.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from time import perf_counter

import httptools

from tracklayer.serving.app import Application, Exchange, reply_of
from tracklayer.serving.model import RequestError

log = logging.getLogger(__name__)

_HEAD = 64 << 10
"""Bytes that may come without one of a body: a head, trailers, the frames of chunks."""

_HEADERS = 100
"""Headers of a request."""

_SPARE = 64 << 10
"""Bytes of a refused body that are read, so that the connection can be kept."""


_LARGE = 16 << 20
"""Bytes of a body whose pieces the C library shall not keep."""


def _give_back() -> None:
    """Have the C library give free memory back to the system; by itself it keeps what lies below
    anything that is in use (malloc_trim(3))."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


def _too_long() -> RequestError:
    return RequestError(431, f"the head is larger than {_HEAD} bytes")


class Incoming(asyncio.Protocol):
    """The half of a connection that listens."""

    _transport: asyncio.Transport

    def __init__(self, application: Application) -> None:
        self._application = application
        self._parser = httptools.HttpRequestParser(self)
        self._heading = False
        self._headers: dict[bytes, bytes] = {}
        self._target = b""
        self._begin = 0.0
        self._incoming: Exchange | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._frame = 0
        self._deaf = False
        self._current: Exchange | None = None
        self.deadline = float("inf")

    @abstractmethod
    def _enqueue(self, exchange: Exchange) -> None:
        """Answer it when its turn comes."""

    @abstractmethod
    def _make_last(self) -> None:
        """Close after the answers that are on their way."""

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._frame += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            if isinstance(error, httptools.HttpParserCallbackError):
                log.exception("a request could not be taken")
            self._give_up(RequestError(400, f"this is not HTTP/1.1: {error}"))
            return
        if self._frame > _HEAD and not self._deaf:
            self._give_up(_too_long())

    def on_message_begin(self) -> None:
        self._heading = True
        self._headers = {}
        self._target = b""
        self._begin = perf_counter()
        if self._current is None:
            self.deadline = self._begin + self._application.limits.head

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._heading:  # a trailer comes too late to change what was asked
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        self._heading = False
        parser, headers = self._parser, self._headers
        if parser.should_upgrade() and b"upgrade" in headers:
            return
        method = parser.get_method()
        exchange = self._incoming = Exchange(
            headers,
            begin=self._begin,
            head=method == b"HEAD",
            keep_alive=parser.should_keep_alive(),
        )
        if len(headers) > _HEADERS:
            self._give_up(RequestError(431, f"there are more than {_HEADERS} headers"))
            return
        # What came with the head may be body.
        if self._frame > _HEAD and sum(map(len, (*headers, *headers.values()))) > _HEAD:
            self._give_up(_too_long())
            return
        self._application.admit(exchange, method, self._target)
        expects = b"expect" in headers and parser.get_http_version() != "1.0"
        if exchange.refusal is None:
            if expects and not self._current:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif (
            expects
            or b"transfer-encoding" in headers
            or int(headers.get(b"content-length", 0)) > _SPARE
        ):
            self._reject(exchange)
        if self._current is None:
            self.deadline = self._begin + self._application.limits.seconds

    def on_body(self, body: bytes) -> None:
        exchange = self._incoming
        if exchange is None:
            return
        self._frame = 0
        if exchange.refusal is None:
            self._size += len(body)
            self._chunks.append(body)
            if self._size > self._application.limits.body:
                self._give_up(self._application.too_large())

    def on_message_complete(self) -> None:
        exchange = self._incoming
        if exchange is None:
            return
        self._frame = 0
        self._incoming = None
        if chunks := self._chunks:
            exchange.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            large = self._size > _LARGE
            del chunks
            self._forget()
            if large:
                _give_back()
        self._enqueue(exchange)

    def _decline(self, rest: bytes) -> None:
        """Take a request that offers an upgrade as one that does not: llhttp has left its body.

        A CONNECT has been refused by now, and nothing after it is a request.
        """
        headers = self._headers
        if headers.pop(b"upgrade", None) is None:
            self._deaf = True
            self._make_last()
            return
        last = b"close" in headers.pop(b"connection", b"").lower()
        version = self._parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._target, version)]
        lines += [b"%b: %b" % header for header in headers.items()]
        lines += [b"connection: close"] * last
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _give_up(self, refused: RequestError) -> None:
        """Answer what comes in with an error, without its rest."""
        exchange = self._incoming or self._nothing()
        exchange.refusal = reply_of(refused)
        self._reject(exchange)

    def _nothing(self) -> Exchange:
        """In place of a request that was not understood."""
        begin = self._begin or perf_counter()
        return Exchange({}, begin=begin, head=False, keep_alive=False)

    def _reject(self, exchange: Exchange) -> None:
        """Send a refusal now, and hear nothing more."""
        self._incoming = None
        self._deaf = True
        self._forget()
        exchange.keep_alive = False
        self._enqueue(exchange)

    def _forget(self) -> None:
        self._chunks = []
        self._size = 0
