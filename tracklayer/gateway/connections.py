"""The side of the callers: their connections, and the requests that come in on them.

A connection has one request at a time at work; those that a caller sends ahead wait their turn.
How slowly a caller may send and read is limited here; how much it may send, in the intake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from tracklayer.gateway.http1 import error_document, own_answer
from tracklayer.gateway.intake import SMALL, Intake
from tracklayer.gateway.request import Request

_KEEP_ALIVE = 75.0
"""Seconds for which a connection may be idle, and which the head of a request may take."""

_LINGER = 2.0
"""Seconds for which what is sent after a refusal is read away, so that the refusal is not lost."""


class Work(Protocol):
    """What is being done for one request."""

    def body_came(self) -> None:
        """More of the body is in ``request.body``, or it is whole."""

    def abandoned(self) -> None:
        """Nobody waits for the answer any more."""

    def taking_pauses(self, paused: bool) -> None:
        """The caller reads slower than it is written to, or no longer so."""


Handler = Callable[["Connection", Request], Work | None]
"""Begins the work on a request; None if it is answered already."""


class Connection(asyncio.Protocol):
    """One caller's connection. ``request`` is the one at work."""

    def __init__(self, server: Server) -> None:
        self.request: Request | None = None
        self.transport: asyncio.Transport
        self.peer = "unix"
        self.scheme = "http"
        self.deadline = float("inf")
        self._server = server
        self._intake = Intake(self, server.limit)
        self._waiting: deque[Request] = deque()
        self._work: Work | None = None
        self._last = False  # closed after the answer at work
        self._stuck = False  # the caller does not read
        self._answering = False  # the head of the answer is out
        self._paused = False

    # What the work calls.

    def start(self, head: bytes) -> None:
        """The head of an answer whose body follows by :meth:`write`."""
        self._answering = True
        self.transport.write(head + self._persistence())

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        self.transport.write(data)

    def finish(self, head: bytes = b"", body: bytes = b"") -> None:
        """The answer is whole; with ``head`` it was not begun before."""
        if head:
            self.transport.write(b"%b%b%b" % (head, self._persistence(), body))
        request, self.request, self._work = self.request, None, None
        self._answering = False
        if self._waiting and not self._last:
            self._server.loop.call_soon(self._next)
        elif self._intake.deaf or request is None or not request.whole:
            self._linger()
        elif self._last:
            self._intake.deaf = True
            self.transport.close()
        else:
            self.pause(False)
            self._rearm()

    def answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, **more: str
    ) -> None:
        """The whole answer, by the gateway itself."""
        head, content = own_answer(status, body, headers, **more)
        self.finish(head, b"" if self.request and self.request.method == b"HEAD" else content)

    def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """The whole answer: an error."""
        self.answer(status, error_document(message), headers)

    def abort(self) -> None:
        """Break the connection: the caller sees that the answer is not whole."""
        self._work = None
        self.transport.abort()

    def pause(self, paused: bool) -> None:
        """Stop reading from the caller, or go on."""
        if paused != self._paused and not self.transport.is_closing():
            self._paused = paused
            (self.transport.pause_reading if paused else self.transport.resume_reading)()

    # What the server calls.

    @property
    def busy(self) -> bool:
        """Is a request at work?"""
        return self._work is not None or bool(
            self._intake.incoming and self._intake.incoming.method
        )

    def expire(self) -> None:
        """End what takes too long."""
        self.deadline = float("inf")
        late = self.request if self._work else self._intake.incoming
        if self._stuck or self._intake.deaf or late is None or late.whole or not late.method:
            self.transport.abort()
        else:
            self._intake.deaf = True
            self._give_up(408, f"nothing came of the body for {self._server.patience:g} s")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are not of its class
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
        if transport.get_extra_info("sslcontext"):
            self.scheme = "https"
        self._server.connections.add(self)
        self._rearm()

    def data_received(self, data: bytes) -> None:
        self._intake.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._server.connections.discard(self)
        self._waiting.clear()
        self._intake.deaf = True
        work, self._work = self._work, None
        if work is not None:
            work.abandoned()

    def pause_writing(self) -> None:
        self._stuck = True
        self._rearm()
        if self._work is not None:
            self._work.taking_pauses(True)

    def resume_writing(self) -> None:
        self._stuck = False
        self._rearm()
        if self._work is not None:
            self._work.taking_pauses(False)
        else:
            self._next()

    # What the intake calls.

    def take(self, request: Request) -> None:
        """Begin a request, or let it wait for those before it."""
        request.taken = True
        if self.request is None and not self._waiting and not self._stuck:
            self._begin(request)
        else:
            self._waiting.append(request)
            self.pause(True)

    def expect_body(self) -> None:
        """Its time begins to run."""
        if self._work is None:
            self._rearm()

    def body_came(self, request: Request) -> None:
        """Give it to the work."""
        if request is self.request:
            if request.whole or request.length is None or request.length > SMALL:
                self._rearm()
            if self._work is not None:
                self._work.body_came()

    def broken(self, request: Request | None, status: int, message: str) -> None:
        """Say so, after the answers to what came before."""
        if self.request is not None and not self.request.whole:
            self._give_up(status, message)
        elif request is not None and request.taken:
            request.refusal = status, message
        else:
            refused = Request()
            refused.refusal = status, message
            self.take(refused)

    # Inside.

    def _give_up(self, status: int, message: str) -> None:
        """Answer the request at work, if any, with an error."""
        work, self._work = self._work, None
        if work is not None:
            work.abandoned()
        if self._answering:
            self.transport.abort()
        else:
            self.refuse(status, message)

    def _next(self) -> None:
        if self._waiting and self.request is None and not self._stuck:
            request = self._waiting.popleft()
            if not self._waiting:
                self.pause(False)
            self._begin(request)

    def _begin(self, request: Request) -> None:
        self.request = request
        if request.refusal:
            self.refuse(*request.refusal)
            return
        self._work = self._server.handler(self, request)
        if self._work is None:
            return
        self._rearm()
        if request.expects and request.modern and not request.received:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._work.body_came()

    def _persistence(self) -> bytes:
        """The end of the head: whether the connection goes on after this answer."""
        request = self.request
        if self._server.stopping or request is None or not (request.keep_alive and request.whole):
            self._last = True
            self._waiting.clear()
            return b"Connection: close\r\n\r\n"
        return b"\r\n" if request.modern else b"Connection: keep-alive\r\n\r\n"

    def _rearm(self) -> None:
        """Set the time until which something has to come from the caller, or be read by it."""
        patience = self._server.patience
        if self._work is not None and self.request and self.request.whole and not self._stuck:
            self.deadline = float("inf")
            return
        if self.request is None and not self._stuck:
            begun = self._intake.incoming is not None and self._intake.incoming.method
            patience = patience if begun else _KEEP_ALIVE
        self.deadline = self._server.now() + patience

    def _linger(self) -> None:
        """Close, but read on for a moment: a connection closed with something unread is reset, and
        the caller would lose the answer."""
        self._intake.deaf = True
        self._waiting.clear()
        if self.transport.is_closing():
            return
        self.pause(False)
        self.deadline = self._server.now() + _LINGER
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # the caller is gone
                self.transport.abort()


class Server:
    """The connections of one listening socket.

    :param handler: begins the work on each request.
    :param limit: bytes that the body of a request may have.
    :param patience: seconds to wait for the next piece of a body (of a small one: for all of it),
        and for a caller that does not read its answer.
    """

    def __init__(self, handler: Handler, *, limit: int, patience: float) -> None:
        self.handler = handler
        self.limit = limit
        self.patience = patience
        self.connections: set[Connection] = set()
        self.stopping = False
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time

    def sweep(self) -> None:
        """End what takes too long; to be called a few times a second."""
        now = self.now()
        for connection in [each for each in self.connections if each.deadline < now]:
            connection.expire()

    async def stop(self, drain: float) -> None:
        """Answer what is at work, within ``drain`` seconds, and close all connections."""
        self.stopping = True
        end = self.now() + drain
        while any(each.busy for each in self.connections) and self.now() < end:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.transport.close()
        await asyncio.sleep(0)
