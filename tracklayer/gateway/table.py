"""The routing table: in memory for requests, in a file for the next start."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

from tracklayer.errors import ServiceError
from tracklayer.gateway.backends import Backend, LiveRoute, connect, retire
from tracklayer.gateway.routes import Route, load, save
from tracklayer.sockets import accepts


class Table:
    """Live routes by project. Made in a running event loop.

    :param file: keeps the routes.
    :param timeout: see :func:`tracklayer.gateway.backends.connect`.
    :raises PlatformError: the file is damaged.
    """

    def __init__(self, file: Path, *, timeout: float) -> None:
        self._file = file
        self._timeout = timeout
        self._writing = asyncio.Lock()
        self._switching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._leaving: dict[str, list[Backend]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.live = {project: self._open(route, None) for project, route in load(file).items()}

    @property
    def routes(self) -> dict[str, Route]:
        """What is live now."""
        return {project: live.route for project, live in self.live.items()}

    async def switch(self, project: str, route: Route, timeout: float) -> tuple[Route | None, int]:
        """Give new requests of ``project`` to ``route``, then wait for those to the old servers.

        Switches of one project wait for each other. The file is written before memory changes:
        after a crash between the two, the next start serves what the file says.

        :param timeout: seconds to wait for the old servers' requests.
        :return: the route before, and how many requests were still in flight at the time-out.
        :raises ServiceError: a server of ``route`` accepts no connection; nothing has changed.
        :raises PlatformError: the file cannot be written; nothing has changed.
        """
        async with self._switching[project]:
            for path in route.backends:
                if not await asyncio.to_thread(accepts, path):
                    raise ServiceError(
                        f"{project} {route.version}: no server accepts connections on {path}; "
                        "the route stays as it was"
                    )
            return await self._replace(project, route, timeout)

    async def remove(self, project: str, timeout: float) -> tuple[Route | None, int]:
        """Like :meth:`switch`, to nothing; a project without a route is left as it is."""
        async with self._switching[project]:
            return await self._replace(project, None, timeout)

    async def close(self) -> None:
        """Close all connections."""
        for retiring in self._retiring:
            retiring.cancel()
        for live in self.live.values():
            for backend in live.backends:
                await backend.session.close()

    async def _replace(
        self, project: str, route: Route | None, timeout: float
    ) -> tuple[Route | None, int]:
        async with self._writing:
            routes = self.routes
            routes.pop(project, None)
            if route:
                routes[project] = route
            await asyncio.to_thread(save, self._file, routes)
            old = self.live.pop(project, None)
            if route:
                self.live[project] = self._open(route, old)
        if old is None:
            return None, 0
        kept = self.live[project].backends if route else ()
        # With those that an earlier switch gave up waiting for: a deployer that tries again must
        # not be told that nothing is in flight.
        leaving = self._leaving.pop(project, []) + [b for b in old.backends if b not in kept]
        # A task, because it goes on after the time-out.
        retiring = asyncio.create_task(retire(leaving))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        await asyncio.wait([retiring], timeout=timeout)
        if remaining := [backend for backend in leaving if backend.in_flight]:
            self._leaving[project] = remaining
        return old.route, sum(backend.in_flight for backend in remaining)

    def _open(self, route: Route, old: LiveRoute | None) -> LiveRoute:
        """The route with connections; a server that stays keeps those it has."""
        known: dict[Path, Backend] = {b.path: b for b in old.backends} if old else {}
        backends = [known.get(path) or connect(path, self._timeout) for path in route.backends]
        return LiveRoute(route, tuple(backends))
