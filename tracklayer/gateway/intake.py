"""What comes in from a caller, made requests of; every limit on how much is here."""

from __future__ import annotations

import logging
from typing import Protocol

import httptools

from tracklayer.gateway.http1 import framing
from tracklayer.gateway.request import HEAD, Request, too_large

log = logging.getLogger(__name__)

SMALL = 64 << 10
"""Bytes of a body that is waited for before anything is done for its request."""


class Receiver(Protocol):
    """Who the requests are for."""

    def take(self, request: Request) -> None:
        """A request to work on: whole, or with a large body to come, or one to refuse."""

    def expect_body(self) -> None:
        """The head of a request with a small body has come."""

    def body_came(self, request: Request) -> None:
        """More of the body of a request that was taken, or the end of it."""

    def broken(self, request: Request | None, status: int, message: str) -> None:
        """Nothing that follows can be read; ``request`` is the one that was coming in."""


class _Refused(Exception):
    """Ends the parsing of what is not wanted."""


class Intake:
    """The parser of one connection.

    ``incoming`` is the request that is not whole yet. Once it is ``deaf``, it takes nothing more.
    """

    def __init__(self, receiver: Receiver, limit: int) -> None:
        self.incoming: Request | None = None
        self.deaf = False
        self._receiver = receiver
        self._limit = limit
        self._parser = httptools.HttpRequestParser(self)
        self._silent = 0  # bytes since a body or the end of a request came

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._silent += len(data)
        while data and not self.deaf:
            data = self._parse(data)
        if self._silent > HEAD and not self.deaf:
            self._break(431, f"more than {HEAD} bytes without an end of the head or a body")

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser; what it leaves for another."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline()
            return data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Refused):
                log.exception("a request failed")
                self._break(500, "the gateway failed on this request")
        except httptools.HttpParserError as error:
            self._break(400, f"this is no HTTP: {error}")
        return b""

    def _decline(self) -> None:
        """Go on with HTTP/1.1 when a request offers another protocol (RFC 9110, 7.8). Its body, if
        it has one, is still to come: a new parser gets a head that says so."""
        self._parser = httptools.HttpRequestParser(self)
        request = self.incoming
        if request is not None:
            request.offers = False
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing(request.length) + b"\r\n")

    def _break(self, status: int, message: str) -> None:
        if self.deaf:
            return
        self.deaf = True
        request, self.incoming = self.incoming, None
        self._receiver.broken(request, status, message)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.incoming is None:  # else it goes on with its body: see _decline
            self.incoming = Request()

    def on_url(self, url: bytes) -> None:
        if self.incoming is not None and not self.incoming.method:
            self.incoming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are dropped: nothing that they say was checked when the request was let in.
        if self.incoming is not None and not self.incoming.method:
            self.incoming.headers.append((name.lower(), name, value))

    def on_headers_complete(self) -> None:
        request = self.incoming
        assert request is not None
        if request.method:
            return
        request.examine(self._parser, self._limit)
        if request.refusal:
            self.deaf = True
            self._receiver.take(request)
        elif request.length is None or request.length > SMALL or request.expects:
            self._receiver.take(request)
        elif request.length:
            self._receiver.expect_body()
        self._heed()

    def on_body(self, data: bytes) -> None:
        request = self.incoming
        assert request is not None
        self._silent = 0
        request.received += len(data)
        if request.received > self._limit:
            self._break(413, too_large(self._limit))
            raise _Refused
        request.body.append(data)
        if request.taken:
            self._receiver.body_came(request)
        self._heed()

    def on_message_complete(self) -> None:
        request = self.incoming
        assert request is not None
        if request.offers and request.length != 0:
            return  # the parser takes its body for the other protocol: see _decline
        self.incoming = None
        self._silent = 0
        request.whole = True
        if request.taken:
            self._receiver.body_came(request)
        else:
            self._receiver.take(request)
        self._heed()

    def _heed(self) -> None:
        """Stop in the middle of what came, when nothing more is wanted."""
        if self.deaf:
            raise _Refused
