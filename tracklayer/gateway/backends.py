"""The servers behind the gateway: their connections, their load, their health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

import httptools

from tracklayer.gateway.http1 import Headers

log = logging.getLogger(__name__)

_DOWN = 1.0
"""Seconds for which a server that refused a connection or a request is asked last."""

_IDLE = 30.0
"""Seconds that an idle connection is kept; model servers keep it longer, so they never close one
just as a request is sent into it."""

_CONNECT = 2.0
"""Seconds that a server may take to accept a connection."""


class Asker(Protocol):
    """Who sent a request into a link, and is told what comes of it."""

    def connected(self, link: Link) -> None:
        """The link to a server is there."""

    def refused(self, backend: Backend) -> None:
        """The server did not accept the connection: the request never left."""

    def answer_begins(self, link: Link) -> None:
        """Status and headers are there."""

    def answer_goes_on(self, data: bytes) -> None:
        """A piece of the body."""

    def answer_ends(self, link: Link) -> None:
        """The answer is whole."""

    def lost(self, link: Link, reason: Exception | None) -> None:
        """The connection ended before the answer did; it timed out, if for a TimeoutError."""

    def sending_pauses(self, paused: bool) -> None:
        """The server reads slower than it is written to, or no longer so."""


class Backend:
    """One server. ``in_flight`` counts the requests that were given to it and not yet answered;
    ``outside`` those that a proxy in front of this one has with it, once it leaves the route."""

    __slots__ = (
        "_connecting",
        "_idle",
        "_links",
        "closed",
        "down_until",
        "in_flight",
        "outside",
        "path",
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_flight = 0
        self.outside = 0
        self.down_until = 0.0
        self.closed = False
        self._idle: list[Link] = []
        self._links: set[Link] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """Requests that wait for its answer."""
        return self.in_flight + self.outside

    def mark_down(self, now: float) -> None:
        """It refused: ask it last for a while."""
        self.down_until = now + _DOWN

    def idle(self) -> Link | None:
        """A connection that is free and whole."""
        while self._idle:
            link = self._idle.pop()
            if not link.transport.is_closing():
                return link
        return None

    def connect(self, asker: Asker) -> None:
        """Open a connection and tell ``asker``."""
        task = asyncio.get_running_loop().create_task(self._connect(asker))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, asker: Asker) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT):
                _, link = await loop.create_unix_connection(lambda: Link(self), str(self.path))
        except (OSError, TimeoutError):
            asker.refused(self)
            return
        self._links.add(link)
        asker.connected(link)

    def release(self, link: Link) -> None:
        """Keep a connection for the next request."""
        if self.closed:
            link.transport.close()
        else:
            link.deadline = asyncio.get_running_loop().time() + _IDLE
            self._idle.append(link)

    def forget(self, link: Link) -> None:
        """The connection is gone."""
        self._links.discard(link)
        if link in self._idle:
            self._idle.remove(link)

    def sweep(self, now: float) -> None:
        """Close what was idle, or kept a request waiting, for too long."""
        for link in [link for link in self._links if link.deadline < now]:
            link.expire()

    def close(self) -> None:
        """Close all connections."""
        self.closed = True
        for link in list(self._links):
            link.transport.close()


class Link(asyncio.Protocol):
    """A connection to a server; one request at a time.

    ``status``, ``headers``, ``length`` (None: the body ends with the last chunk or the connection)
    are of the answer that comes in. ``used``: it has answered before. ``begun``: something of the
    answer has come.
    """

    __slots__ = (
        "_ended",
        "_parser",
        "_paused",
        "asker",
        "backend",
        "begun",
        "deadline",
        "headers",
        "keep",
        "length",
        "status",
        "transport",
        "used",
        "wants_end",
    )

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.asker: Asker | None = None
        self.transport: asyncio.Transport
        self.deadline = float("inf")
        self.used = False
        self._paused = False
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.length: int | None = None
        self.keep = False
        self.begun = False
        self.wants_end = False
        self._ended = False

    def send(self, asker: Asker, data: bytes, deadline: float) -> None:
        """Write the beginning of a request, or all of it, on behalf of ``asker``."""
        self._reset()
        self.asker = asker
        self.deadline = deadline
        self.transport.write(data)

    def pause(self, paused: bool, patience: float) -> None:
        """Stop reading the answer, or go on."""
        if paused == self._paused or self.transport.is_closing():
            return
        self._paused = paused
        now = asyncio.get_running_loop().time()
        self.deadline = float("inf") if paused else now + patience
        (self.transport.pause_reading if paused else self.transport.resume_reading)()

    def finish(self, *, reusable: bool) -> None:
        """Its request was answered, or given up."""
        self.asker = None
        self.pause(False, 0.0)
        if reusable and self.keep and not self.transport.is_closing():
            self.used = True
            self.backend.release(self)
        else:
            self.transport.abort()

    def expire(self) -> None:
        """It took too long."""
        self._lose(TimeoutError())

    def _lose(self, reason: Exception | None) -> None:
        asker, self.asker = self.asker, None
        self.deadline = float("inf")
        if self.transport is not None:
            self.transport.abort()
        if asker is not None:
            asker.lost(self, reason)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are not of its class

    def data_received(self, data: bytes) -> None:
        if self.asker is None:  # nobody has asked for anything
            self.transport.abort()
            return
        self.begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            log.exception("the answer of %s could not be passed on", self.backend.path)
            self._lose(None)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._lose(None)
        else:
            # Not from within the parser: whatever follows the answer belongs to no other request.
            if self._ended and self.asker is not None:
                self.asker.answer_ends(self)

    def eof_received(self) -> bool:
        if self.asker is not None and self.wants_end:
            self.asker.answer_ends(self)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.backend.forget(self)
        self._lose(exc)

    def pause_writing(self) -> None:
        if self.asker is not None:
            self.asker.sending_pauses(True)

    def resume_writing(self) -> None:
        if self.asker is not None:
            self.asker.sending_pauses(False)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._ended:
            self.keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it is a trailer
            self.headers.append((name.lower(), name, value))

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.headers = []
            return
        self.status = status
        self.keep = self._parser.should_keep_alive()
        chunked = False
        for low, _, value in self.headers:
            if low == b"content-length":
                self.length = int(value)
            elif low == b"transfer-encoding":
                chunked = True
        self.wants_end = self.length is None and not chunked
        if self.asker is not None:
            self.asker.answer_begins(self)

    def on_body(self, data: bytes) -> None:
        if self.asker is not None and not self._ended:
            self.asker.answer_goes_on(data)

    def on_message_complete(self) -> None:
        if self.status:
            self._ended = True


async def retire(backends: Iterable[Backend]) -> None:
    """Wait until nothing is in flight to ``backends``, then close their connections."""
    for backend in backends:
        while backend.busy:
            await asyncio.sleep(0.005)
        backend.close()
