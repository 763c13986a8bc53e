"""The way of one request: to a server that is up, and its answer back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tracklayer.gateway.backends import Backend, Link
from tracklayer.gateway.choice import Choice
from tracklayer.gateway.connections import Connection
from tracklayer.gateway.http1 import (
    REPEATABLE,
    chunk,
    error_document,
    first,
    framing,
    joined,
    kept,
    own_answer,
)
from tracklayer.gateway.live import LiveRoute, LiveVersion
from tracklayer.gateway.relay import BUFFERED, Relay
from tracklayer.gateway.request import Request

if TYPE_CHECKING:
    from tracklayer.gateway.proxy import Proxy

_AHEAD = 256 << 10
"""Bytes of a larger body that are taken before the connection to a server is there."""

_BROKEN = 0
"""Stands for a status when there was no whole answer."""


class Exchange:
    """One request to a version, or to another when a version on trial fails on it."""

    __slots__ = (
        "_body",
        "_caller",
        "_choice",
        "_client",
        "_gateway",
        "_head",
        "_link",
        "_live",
        "_relay",
        "_request",
        "_retried",
        "_started",
    )

    def __init__(
        self,
        gateway: Proxy,
        client: Connection,
        request: Request,
        live: LiveRoute,
        pinned: LiveVersion | None,
        *,
        head: bytes,
        caller: str,
        turn: LiveVersion | None = None,
    ) -> None:
        self._gateway = gateway
        self._client = client
        self._request = request
        self._live = live
        self._head = head
        self._caller = caller
        self._relay = Relay(client, request)
        self._body: bytes | None = None
        self._link: Link | None = None
        self._retried = False
        self._started = 0.0
        self._choice = Choice(live, pinned, gateway.now(), turn)

    # What the caller's connection tells.

    def body_came(self) -> None:
        """Send what came of the body, or the whole request once it is there."""
        request = self._request
        if request.length is not None and request.length <= BUFFERED:
            if request.whole and self._body is None:
                self._body = b"".join(request.body)
                self._dispatch()
            return
        if not self._started:
            self._dispatch()
        elif self._link is not None:
            self._upload(self._link)
        elif sum(map(len, request.body)) > _AHEAD:
            self._client.pause(True)

    def abandoned(self) -> None:
        """Nobody waits for the answer: the server is told by the end of the connection."""
        self._drop_link()
        self._settle(499)

    def taking_pauses(self, paused: bool) -> None:
        """The caller reads slower than its server writes, or no longer so."""
        if self._link is not None:
            self._link.pause(paused, self._gateway.patience)

    # What the connection to the server tells.

    def connected(self, link: Link) -> None:
        if self._choice.backend is not link.backend or self._link is not None:
            link.finish(reusable=False)  # the caller is gone
        else:
            self._send(link)

    def refused(self, backend: Backend) -> None:
        if self._choice.backend is backend and self._link is None:
            backend.mark_down(self._gateway.now())
            self._elsewhere()

    def sending_pauses(self, paused: bool) -> None:
        if not paused or not self._request.whole:
            self._client.pause(paused)

    def answer_begins(self, link: Link) -> None:
        if self._relay.bodiless(link):
            self._deliver(link)
        else:
            self._relay.begin(link, self._choice.version.line)

    def answer_goes_on(self, data: bytes) -> None:
        self._relay.add(data)
        if self._relay.streaming and self._link is not None:
            self._link.deadline = self._gateway.now() + self._gateway.patience

    def answer_ends(self, link: Link) -> None:
        if self._relay.streaming:
            self._release(link)
            self._settle(link.status)
            self._relay.end()
            return
        if link.status >= 500 and self._body is not None:
            if link.status == 503:
                # Busy or stopping: the request was not worked on, so another may have it.
                link.backend.mark_down(self._gateway.now())
                if self._choice.has_next:
                    self._release(link)
                    self._dispatch()
                    return
            if self._choice.on_trial:
                self._release(link)
                self._fall_back(link.status)
                return
        self._deliver(link)

    def lost(self, link: Link, reason: Exception | None) -> None:
        self._link = None
        if self._relay.streaming:
            self._settle(_BROKEN)
            self._client.abort()
        elif isinstance(reason, TimeoutError):
            self._fail(504, "the server of this project took too long")
        elif link.begun:
            self._again(unread=False, message="ended within its answer")
        else:
            # A connection that is reset was closed with the request unread (unix(7)).
            unread = reason is not None or (link.used and self._request.method in REPEATABLE)
            self._again(unread=unread, message="ended before it answered")

    # Inside.

    def _dispatch(self) -> None:
        """Ask the next server."""
        backend = self._choice.next()
        if not self._started:
            self._started = time.perf_counter()
        self._relay.restart()
        link = backend.idle()
        if link is not None:
            self._send(link)
        else:
            backend.connect(self)

    def _send(self, link: Link) -> None:
        self._link = link
        deadline = self._gateway.now() + self._gateway.patience
        if self._body is not None:
            link.send(self, self._head + self._body, deadline)
        else:
            link.send(self, self._head, deadline)
            self._upload(link)
            self._client.pause(False)

    def _upload(self, link: Link) -> None:
        """Pass on what has come of a large body."""
        request = self._request
        for data in request.body:
            link.transport.write(chunk(data) if request.length is None else data)
        request.body.clear()
        if request.whole:
            self._started = time.perf_counter()
            if request.length is None:
                link.transport.write(chunk(b""))
        # The caller's own time limit holds while the body comes.
        link.deadline = (
            self._gateway.now() + self._gateway.patience if request.whole else float("inf")
        )

    def _release(self, link: Link) -> None:
        self._link = None
        link.finish(reusable=self._request.whole)

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.finish(reusable=False)

    def _elsewhere(self) -> None:
        """The server at hand refused the connection: nothing of the request is lost."""
        version = self._choice.version
        if self._choice.has_next:
            self._dispatch()
        elif self._choice.go_elsewhere():
            version.stats.add(_BROKEN, 0.0)
            self._dispatch()
        else:
            self._fail(503, "no server of this project answers now", {"Retry-After": "1"})

    def _again(self, *, unread: bool, message: str) -> None:
        """The connection ended without an answer: ask again where that can do no harm."""
        if self._body is not None and unread and not self._retried:
            self._retried = True
            self._choice.again()
            self._dispatch()
        elif self._body is not None and self._choice.on_trial:
            self._fall_back(_BROKEN)
        else:
            self._fail(502, f"the server of this project {message}")

    def _fall_back(self, status: int) -> None:
        """A version on trial failed: the main one answers."""
        self._count(status)
        self._started = 0.0
        self._choice.fall_back()
        self._dispatch()

    def _fail(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        head, body = own_answer(status, error_document(message), headers)
        self._settle(status)
        self._client.finish(head, b"" if self._request.method == b"HEAD" else body)

    def _deliver(self, link: Link) -> None:
        """Pass on an answer that is whole, in one write."""
        head, body = self._relay.whole(link, self._choice.version.line)
        self._link = None
        # After an answer without a body the server may still send one.
        link.finish(reusable=self._request.whole and not self._relay.bodiless(link))
        self._settle(link.status)
        self._client.finish(head, body)

    def _settle(self, status: int) -> None:
        """It is over: nobody waits for it any more, and it is counted."""
        self._choice.release()
        self._count(status)
        self._gateway.usage.add(
            (self._caller, self._live.project, self._choice.version.number),
            failed=status >= 500 or status == _BROKEN,
            received=self._request.received,
            sent=self._relay.sent,
            seconds=self._elapsed(),
        )

    def _count(self, status: int) -> None:
        self._choice.version.stats.add(status, self._elapsed())

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started if self._started else 0.0


def forwarded(request: Request, path: bytes, extra: bytes, dropped: frozenset[bytes]) -> bytes:
    """The head of a request as a server gets it.

    :param path: with the query.
    :param extra: lines that the gateway adds.
    :param dropped: fields of the caller's that are not passed on.
    """
    headers = request.headers
    lines = kept(headers, dropped, joined(headers, b"connection"))
    if request.length is None or first(headers, b"content-length") is not None:
        lines += framing(request.length)
    host = first(headers, b"host") or b""
    return b"%b %b HTTP/1.1\r\n%b%bX-Forwarded-Host: %b\r\n\r\n" % (
        request.method,
        path,
        lines,
        extra,
        host,
    )
