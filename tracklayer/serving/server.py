"""One application on one listening socket, until a signal: finish what was taken, refuse what is
new, exit with 0."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import uvloop

from tracklayer.serving.app import Application
from tracklayer.serving.connection import Connection
from tracklayer.serving.replies import Clock

_TICK = 0.1
"""Seconds between two looks at what is overdue."""

_QUIET = 0.3
"""Seconds without a new request before a draining server closes its connections. A proxy that was
refused once asks others meanwhile, so that it does not write into a connection as it is closed."""

_FLUSH = 5.0
"""Seconds for the last bytes to leave."""


class Server:
    """Serves an application.

    :param drain: seconds that requests may take to finish after a signal.
    :param grpc: address of gRPC beside HTTP, see :func:`tracklayer.serving.grpc.serve`.
    """

    def __init__(self, application: Application, *, drain: float, grpc: str | None = None) -> None:
        self._application = application
        self._grpc = grpc
        self._drain = drain
        self._stopping: float | None = None
        self._at_once = False
        self._connections: set[Connection] = set()

    def run_on(self, listener: socket.socket) -> None:
        """Serve on ``listener`` until SIGTERM or SIGINT; a second signal does not wait."""
        _allow_files(self._application.limits.connections)
        # What is there now stays: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        uvloop.run(self._until_signal(listener))

    async def serve(self, listener: socket.socket) -> None:
        """Serve on ``listener`` until :meth:`stop`."""
        loop = asyncio.get_running_loop()
        clock = Clock()

        def connection() -> Connection:
            return Connection(self._application, self._connections, clock)

        create = (
            loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
        )
        server = await create(connection, sock=listener)
        async with self._beside():
            while not self._is_over():
                await asyncio.sleep(_TICK)
                clock.tick()
                self._expire()
        server.close()
        await self._close()

    @asynccontextmanager
    async def _beside(self) -> AsyncIterator[None]:
        """gRPC, if it is wanted."""
        if self._grpc is None:
            yield
            return
        # In a thread, since it takes its time: HTTP is served meanwhile.
        await asyncio.to_thread(import_module, "tracklayer.serving.grpc")
        from tracklayer.serving.grpc import serve

        application, limits = self._application, self._application.limits
        server, address = await serve(
            application.services,
            application.infer,
            self._grpc,
            body=limits.body,
            seconds=limits.seconds,
            concurrency=limits.concurrency,
            guard=application.guard,
            refused=application.count_refusal,
        )
        gc.freeze()  # the library, too, is there to stay
        sys.stdout.write(f"serving gRPC on {address}\n")
        sys.stdout.flush()
        try:
            yield
        finally:
            await server.stop(0 if self._at_once else _FLUSH)

    def stop(self) -> None:
        """Begin to drain; the second time: stop at once."""
        self._at_once = self._stopping is not None
        self._stopping = self._stopping or time.perf_counter()
        for service in self._application.services:
            service.draining = True

    async def _until_signal(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.serve(listener)

    def _is_over(self) -> bool:
        """Nothing is in flight and nobody asks any more, or the time for that is over."""
        if self._stopping is None:
            return False
        now = time.perf_counter()
        asked = max(self._stopping, self._application.last_refusal)
        quiet = self._application.in_flight == 0 and now - asked > _QUIET
        return quiet or self._at_once or now - self._stopping > self._drain

    def _expire(self) -> None:
        now = time.perf_counter()
        for connection in [each for each in self._connections if each.deadline < now]:
            connection.expire()

    async def _close(self) -> None:
        for connection in list(self._connections):
            connection.close()
        deadline = time.perf_counter() + (0 if self._at_once else _FLUSH)
        while self._connections and time.perf_counter() < deadline:
            await asyncio.sleep(_TICK / 10)


def _allow_files(connections: int) -> None:
    """A connection is an open file, and the usual limit is lower than what may be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
