"""The servers behind the gateway: their connections, their load, their health."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tracklayer.gateway.routes import Route

_DOWN = 1.0
"""Seconds for which a server that refused a connection or a request is asked last."""

_IDLE = 30.0
"""Seconds that an idle connection is kept; model servers keep it longer, so they never close one
just as a request is sent into it."""


@dataclass(eq=False, slots=True)
class Backend:
    """One server. ``in_flight`` counts the requests that were given to it and not yet answered."""

    path: Path
    session: aiohttp.ClientSession
    in_flight: int = 0
    down_until: float = 0.0

    def mark_down(self, now: float) -> None:
        """It refused: ask it last for a while."""
        self.down_until = now + _DOWN


def connect(path: Path, timeout: float) -> Backend:
    """A backend with its own pool of connections to the unix socket ``path``.

    :param timeout: seconds without a byte of an answer after which a request is given up.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(str(path), limit=0, keepalive_timeout=_IDLE),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )
    return Backend(path, session)


@dataclass(frozen=True, slots=True)
class LiveRoute:
    """A route with its open backends."""

    route: Route
    backends: tuple[Backend, ...]
    _turn: list[int] = field(default_factory=lambda: [0])

    def candidates(self, now: float) -> list[Backend]:
        """Backends in the order in which to try them: up before down, then the least loaded,
        equals in turn."""
        if len(self.backends) == 1:
            return [self.backends[0]]
        self._turn[0] += 1
        start = self._turn[0] % len(self.backends)
        turned = self.backends[start:] + self.backends[:start]
        return sorted(turned, key=lambda b: (b.down_until > now, b.in_flight))


async def retire(backends: Iterable[Backend]) -> None:
    """Wait until nothing is in flight to ``backends``, then close their connections."""
    for backend in backends:
        while backend.in_flight:
            await asyncio.sleep(0.01)
        await backend.session.close()
