"""The model servers' gRPC: a channel to each, and what became of a call on it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import grpc
import grpc.aio

from tracklayer.gateway.backends import Backend
from tracklayer.sockets import grpc_beside

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

SERVICE = "inference.GRPCInferenceService"

LATER = "grpc-retry-pushback-ms"
"""In the trailers of a refusal: in how many milliseconds to ask again. A model server adds it where
it has not worked on the call."""

STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""gRPC's code -> the status of HTTP that means the same (``google/rpc/code.proto``)."""

BROKEN = 0
"""Stands for a status when there was no whole answer."""

# What the library says, and has no code of its own for.
_NO_CONNECTION = "failed to connect to all addresses"
_TOO_MANY = "Concurrent RPC limit exceeded!"

_NEARLY = 0.95
"""Share of its time after which a call was late, whoever says so."""

_GRACE = 30.0
"""Seconds that calls on a channel may take which is closed."""

_AT_ONCE = 1.0
"""Seconds within which a channel says that it has no connection, unless it has tried to make one
with a server that does not answer."""

_OPTIONS = (
    # How large a message may be is the listener's matter.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # In spite of its name: how long a server may take to accept a connection.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # A channel that is closed leaves no connection to be shared by the next one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class Fate(Enum):
    """What became of a call."""

    ANSWERED = "the server said something, be it an error"
    BUSY = "the server did not work on it: it has enough to do, or stops"
    UNSENT = "nobody listens there"
    LOST = "the connection ended before the answer came"
    LATE = "its time was over"


class Reply(NamedTuple):
    """An answer; ``message`` and ``trailers`` go with a code other than OK."""

    code: grpc.StatusCode
    data: bytes = b""
    message: str = ""
    trailers: Metadata = ()
    fate: Fate = Fate.ANSWERED

    @property
    def status(self) -> int:
        """How it is counted."""
        return BROKEN if self.fate is Fate.LOST else STATUS.get(self.code, 500)

    @property
    def failed(self) -> bool:
        """Is it the server's fault?"""
        return self.status >= 500 or self.status == BROKEN


class Links:
    """The channels to the model servers, each opened when it is first needed."""

    def __init__(self) -> None:
        self._links: dict[Backend, _Link] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def ask(
        self, backend: Backend, method: str, data: bytes, metadata: Metadata, seconds: float
    ) -> Reply:
        """Call a method of a server.

        :param seconds: after which it is given up.
        """
        link = self._links.get(backend)
        if link is None:
            link = self._links[backend] = _Link(backend)
        begin = time.perf_counter()
        reply = await link.ask(method, data, metadata, seconds)
        if (
            reply.fate is Fate.UNSENT
            and time.perf_counter() - begin < _AT_ONCE
            and listened_on(link.path)
        ):
            # The channel waits before it tries again, and the server is up already: another one.
            other = self._links.get(backend)
            if other is None or other is link:
                other = self._links[backend] = _Link(backend)
                self._close(link)
            reply = await other.ask(method, data, metadata, seconds)
        return reply

    def sweep(self) -> None:
        """Close the channels to the servers that have left the routes."""
        for backend in [backend for backend in self._links if backend.closed]:
            self._close(self._links.pop(backend))

    async def close(self) -> None:
        """Close all of them."""
        links, self._links = self._links, {}
        await asyncio.gather(*self._closing, *(link.close() for link in links.values()))

    def _close(self, link: _Link) -> None:
        task = asyncio.get_running_loop().create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Link:
    """The channel to one server."""

    def __init__(self, backend: Backend) -> None:
        self.path = grpc_beside(backend.path)
        self._channel = grpc.aio.insecure_channel(f"unix:{quote(str(self.path))}", options=_OPTIONS)
        self._methods: dict[str, Any] = {}

    async def ask(self, method: str, data: bytes, metadata: Metadata, seconds: float) -> Reply:
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = self._channel.unary_unary(f"/{SERVICE}/{method}")
        begin = time.perf_counter()
        try:
            answer = await call(data, timeout=seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            # The server knows the limit too, and may be the first to say that it is over.
            return _reply(error, late=time.perf_counter() - begin > _NEARLY * seconds)
        return Reply(grpc.StatusCode.OK, answer)

    async def close(self) -> None:
        """Once what is still asked on it is answered."""
        await self._channel.close(_GRACE)


def listened_on(path: Path) -> bool:
    """Does anybody listen there? Asked in the event loop, so that it may not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path)) == 0


def _reply(error: grpc.aio.AioRpcError, *, late: bool) -> Reply:
    code, message = error.code(), error.details() or ""
    trailers = tuple((name, value) for name, value in error.trailing_metadata() or ())
    if code is grpc.StatusCode.UNAVAILABLE:
        if message.startswith(_NO_CONNECTION):
            return Reply(code, fate=Fate.UNSENT)
        if any(name == LATER for name, _ in trailers):
            return Reply(code, b"", message, trailers, Fate.BUSY)
        return _lost()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and message == _TOO_MANY:
        later = ((LATER, "1000"),)
        message = "too many requests at once"
        return Reply(grpc.StatusCode.UNAVAILABLE, b"", message, later, Fate.BUSY)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and late:
        return Reply(code, b"", "the server of this project took too long", (), Fate.LATE)
    if code is grpc.StatusCode.CANCELLED:  # not by the caller: then nobody would be here
        return _lost()
    return Reply(code, b"", message, trailers)


def _lost() -> Reply:
    message = "the server of this project ended before it answered"
    return Reply(grpc.StatusCode.UNAVAILABLE, b"", message, (), Fate.LOST)
