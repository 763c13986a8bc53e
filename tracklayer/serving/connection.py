"""HTTP/1.1 on one connection: answers in the order of the requests, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import cast

from tracklayer.serving.app import Application, Exchange, reply_of
from tracklayer.serving.http import Reply
from tracklayer.serving.incoming import Incoming
from tracklayer.serving.model import RequestError
from tracklayer.serving.replies import Clock, head_of
from tracklayer.serving.runner import Outcome

_KEEP_ALIVE = 75.0
"""Seconds; longer than the gateway keeps an idle connection, so that it is the one who closes."""

_LINGER = 5.0
"""Seconds for a client that was refused in the middle of its request to read the answer."""

_HALF_OPEN = 1.0
"""Seconds for the answers to one that will send nothing more: most who do so do not listen."""

_LARGE = 64 << 10
"""Bytes of an answer from which a second write costs less than a copy."""


class Connection(Incoming):
    """One client. ``deadline`` (``time.perf_counter``) is when :meth:`expire` is due.

    :param peers: the open connections, which it joins and leaves.
    """

    def __init__(self, application: Application, peers: set[Connection], clock: Clock) -> None:
        super().__init__(application)
        self._peers = peers
        self._clock = clock
        self._queue: deque[Exchange] = deque()
        self._closing = False
        self._paused = False
        self._full = False
        self._until = float("inf")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peers.add(self)
        self._rest()
        if len(self._peers) > self._application.limits.connections:
            refused = RequestError(503, "too many connections", headers={"retry-after": "1"})
            exchange, reply = self._nothing(), reply_of(refused)
            self._write(exchange, reply)
            self._application.close(exchange, reply.status)
            self._hang_up()

    def eof_received(self) -> bool:
        """The client has said all; or it is gone, which looks the same."""
        self._deaf = True
        if self._closing or not (self._current or self._queue):
            return False
        self._make_last()
        self._until = perf_counter() + _HALF_OPEN
        self.deadline = min(self.deadline, self._until)
        return True

    def pause_writing(self) -> None:
        """The client does not read: nothing more is worked on for it until it does."""
        self._full = True
        self._pause()
        self.deadline = perf_counter() + self._application.limits.seconds

    def resume_writing(self) -> None:
        self._full = False
        self._rest()
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._peers.discard(self)
        self._closing = True
        self._drop(self._current, self._incoming, *self._queue)
        self._current = self._incoming = None
        self._queue.clear()
        del self._parser  # each knows the other

    def expire(self) -> None:
        """What was waited for did not come in time."""
        if self._closing or self._full or perf_counter() > self._until:
            self._transport.abort()
        elif self._current:
            self._current.end()
            self._finish(self._application.too_slow())
            self._advance()
        elif self._incoming or self._heading:
            what = "body" if self._incoming else "head"
            limits = self._application.limits
            seconds = limits.seconds if self._incoming else limits.head
            self._give_up(RequestError(408, f"the {what} took longer than {seconds:g} s"))
        else:
            self.close()

    def close(self) -> None:
        """Close when what was written has left."""
        if not self._closing:
            self._hang_up()

    def _enqueue(self, exchange: Exchange) -> None:
        if self._current is None and not self._queue and not self._full:
            self._serve(exchange)
        else:
            self._queue.append(exchange)
            self._pause()

    def _serve(self, exchange: Exchange) -> None:
        self._current = exchange
        self.deadline = min(exchange.begin + self._application.limits.seconds, self._until)
        outcome = exchange.refusal or self._application.start(exchange, self._answered)
        if outcome is not None:
            self._finish(outcome)

    def _answered(self, exchange: Exchange, outcome: Outcome) -> None:
        if exchange is self._current:
            self._finish(outcome)
            self._advance()

    def _finish(self, outcome: Outcome) -> None:
        exchange = self._current
        assert exchange is not None
        self._current = None
        reply = reply_of(outcome) if isinstance(outcome, RequestError) else outcome
        self._write(exchange, reply)
        self._application.close(exchange, reply.status)
        if exchange.keep_alive:
            self._rest()
        else:
            self._hang_up()

    def _advance(self) -> None:
        while self._queue and not (self._current or self._full or self._closing):
            self._serve(self._queue.popleft())
        if self._paused and not (self._queue or self._full or self._closing):
            self._paused = False
            self._transport.resume_reading()

    def _write(self, exchange: Exchange, reply: Reply) -> None:
        head, body = head_of(exchange, reply, self._clock), reply.body
        if exchange.head:
            self._transport.write(head)
        elif len(body) < _LARGE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def _rest(self) -> None:
        """Set the deadline for what is waited for now."""
        limits = self._application.limits
        if self._full:
            self.deadline = perf_counter() + limits.seconds
        elif self._incoming:
            self.deadline = self._begin + limits.seconds
        elif self._heading:
            self.deadline = self._begin + limits.head
        else:
            self.deadline = (self._begin or perf_counter()) + _KEEP_ALIVE

    def _make_last(self) -> None:
        """Close after the answers that are on their way."""
        if last := self._queue[-1] if self._queue else self._current:
            last.keep_alive = False
        else:
            self.close()

    def _hang_up(self) -> None:
        self._closing = True
        self._drop(*self._queue)
        self._queue.clear()
        if self._deaf and self._until == float("inf"):
            # Closed with unread bytes, the connection would be reset, and the answer lost with it.
            self._transport.write_eof()
            self.deadline = perf_counter() + _LINGER
            if self._paused:
                self._transport.resume_reading()
        else:
            self._transport.close()
            self.deadline = perf_counter() + self._application.limits.seconds

    def _drop(self, *exchanges: Exchange | None) -> None:
        """These get no answer."""
        for exchange in exchanges:
            if exchange:
                exchange.end()
                self._application.close(exchange, 499)

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()
