"""The routing table: in memory for requests, in a file for the next start."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tracklayer.errors import ServiceError
from tracklayer.gateway.backends import Backend, retire
from tracklayer.gateway.live import LiveRoute, LiveVersion
from tracklayer.gateway.routes import Route, load, save
from tracklayer.gateway.stats import VersionStats
from tracklayer.sockets import accepts


@dataclass(frozen=True, slots=True)
class Place:
    """What answers at the first segment of a path.

    :param pinned: the version that the segment names; None: by weight.
    :param prefix: the header line that tells a server where it is.
    :param missing: why nothing answers there.
    """

    live: LiveRoute
    pinned: LiveVersion | None
    prefix: bytes
    missing: str = ""


Follow: TypeAlias = Callable[[Sequence[Backend]], Awaitable[None]]
"""Lets a proxy in front know what the routes are now, and which servers leave them."""


class Table:
    """Live routes by project. Made in a running event loop.

    ``places`` is by the first segment of a path; ``stats`` by project and version, also of those
    that left. ``follow``: of the proxy in front, if there is one.

    :param file: keeps the routes.
    :raises PlatformError: the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = asyncio.Lock()
        self._switching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._leaving: dict[str, list[Backend]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._open: set[Backend] = set()
        self.live: dict[str, LiveRoute] = {}
        self.places: dict[bytes, Place] = {}
        self.stats: defaultdict[str, dict[int, VersionStats]] = defaultdict(dict)
        self.follow: Follow | None = None
        for project, route in load(file).items():
            self._set(project, route)

    @property
    def routes(self) -> dict[str, Route]:
        """What is live now."""
        return {project: live.route for project, live in self.live.items()}

    def missing(self, segment: bytes) -> Place | None:
        """The place of a version that a project does not have; None if there is no such project."""
        name, _, selector = segment.partition(b"@")
        live = self.live.get(name.decode("latin-1"))
        if live is None:
            return None
        known = ", ".join(
            f"@{each}" for each in [*sorted(live.versions), *sorted(live.route.aliases)]
        )
        shown = selector[:100].decode("latin-1")
        return Place(live, None, b"", f"{live.project} has no version @{shown}; there are {known}")

    async def switch(self, project: str, route: Route, timeout: float) -> tuple[Route | None, int]:
        """Give new requests of ``project`` to ``route``, then wait for those to servers that left.

        Switches of one project wait for each other. The file is written before memory changes:
        after a crash between the two, the next start serves what the file says.

        :param timeout: seconds to wait for the old servers' requests.
        :return: the route before, and how many requests were still in flight at the time-out.
        :raises ServiceError: a server of ``route`` accepts no connection; nothing has changed.
        :raises PlatformError: the file cannot be written; nothing has changed.
        """
        async with self._switching[project]:
            before = self.live.get(project)
            if route.access is None and before is not None:
                route = route.model_copy(update={"access": before.route.access})
            known = before.backends if before else {}
            for number, paths in route.versions.items():
                for path in paths:
                    # A server that stays may be down for a moment; a new one has to be up.
                    if path not in known and not await asyncio.to_thread(accepts, path):
                        raise ServiceError(
                            f"{project} {number}: no server accepts connections on {path}; "
                            "the route stays as it was"
                        )
            return await self._replace(project, route, timeout)

    async def remove(self, project: str, timeout: float) -> tuple[Route | None, int]:
        """Like :meth:`switch`, to nothing; a project without a route is left as it is."""
        async with self._switching[project]:
            return await self._replace(project, None, timeout)

    def sweep(self) -> None:
        """Close the servers' connections that were idle or waited for too long."""
        now = asyncio.get_running_loop().time()
        for backend in list(self._open):
            backend.sweep(now)

    def close(self) -> None:
        """Close all connections."""
        for retiring in self._retiring:
            retiring.cancel()
        for backend in list(self._open):
            backend.close()

    async def _replace(
        self, project: str, route: Route | None, timeout: float
    ) -> tuple[Route | None, int]:
        async with self._writing:
            routes = self.routes
            routes.pop(project, None)
            if route:
                routes[project] = route
            await asyncio.to_thread(save, self._file, routes)
            old = self._set(project, route)
            kept = self.live[project].backends if route else {}
            before = old.backends if old else {}
            gone = [backend for path, backend in before.items() if path not in kept]
            if self.follow is not None:
                await self.follow(gone)
        if old is None:
            return None, 0
        # With those that an earlier switch gave up waiting for: a deployer that tries again must
        # not be told that nothing is in flight.
        leaving = self._leaving.pop(project, []) + gone
        # A task, because it goes on after the time-out.
        retiring = asyncio.create_task(self._retire(leaving))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        await asyncio.wait([retiring], timeout=timeout)
        if remaining := [backend for backend in leaving if backend.busy]:
            self._leaving[project] = remaining
        return old.route, sum(backend.busy for backend in remaining)

    async def _retire(self, backends: list[Backend]) -> None:
        await retire(backends)
        self._open.difference_update(backends)

    def _set(self, project: str, route: Route | None) -> LiveRoute | None:
        """Change what is live; servers that stay keep their connections. The route before."""
        old = self.live.pop(project, None)
        if old is not None:
            for segment in segments(old):
                del self.places[segment]
        if route is not None:
            backends = old.backends if old else {}
            live = LiveRoute(project, route, backends, self.stats[project], old)
            self._open.update(live.backends.values())
            self.live[project] = live
            for segment, pinned in segments(live).items():
                prefix = b"X-Forwarded-Prefix: /%b\r\n" % segment
                self.places[segment] = Place(live, pinned, prefix)
        return old


def segments(live: LiveRoute) -> dict[bytes, LiveVersion | None]:
    """The first segments of the project's paths, and the version that each names."""
    named = {str(number): version for number, version in live.versions.items()}
    named |= {alias: live.versions[number] for alias, number in live.route.aliases.items()}
    places: dict[bytes, LiveVersion | None] = {live.project.encode(): None}
    return places | {f"{live.project}@{name}".encode(): version for name, version in named.items()}
