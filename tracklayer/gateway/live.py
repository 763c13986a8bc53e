"""A route at work: its open servers, whose turn it is, and what was counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tracklayer.gateway.backends import Backend
from tracklayer.gateway.balance import Balance
from tracklayer.gateway.http1 import VERSION_HEADER
from tracklayer.gateway.routes import CHAMPION, Route
from tracklayer.gateway.stats import VersionStats


@dataclass(eq=False, slots=True)
class LiveVersion:
    """One version with its servers. ``line`` tells callers which one answered."""

    number: int
    backends: tuple[Backend, ...]
    stats: VersionStats
    line: bytes = field(init=False)
    _turn: int = 0

    def __post_init__(self) -> None:
        self.line = f"{VERSION_HEADER}: {self.number}\r\n".encode()

    def candidates(self, now: float) -> list[Backend]:
        """Its servers in the order in which to try them: up before down, then the least loaded,
        equals in turn."""
        if len(self.backends) == 1:
            return [self.backends[0]]
        self._turn += 1
        start = self._turn % len(self.backends)
        turned = self.backends[start:] + self.backends[:start]
        return sorted(turned, key=lambda b: (b.down_until > now, b.in_flight))


class LiveRoute:
    """A route with its open servers.

    :param backends: the open servers by path; those that are missing are opened.
    :param stats: the counters of the project's versions; new ones are added.
    :param before: the route that it replaces.
    """

    def __init__(
        self,
        project: str,
        route: Route,
        backends: Mapping[Path, Backend],
        stats: dict[int, VersionStats],
        before: LiveRoute | None,
    ) -> None:
        self.project = project
        self.route = route
        opened = dict(backends)
        self.versions: dict[int, LiveVersion] = {}
        for number, paths in route.versions.items():
            servers = tuple(opened.setdefault(path, Backend(path)) for path in paths)
            counters = stats.setdefault(number, VersionStats())
            self.versions[number] = LiveVersion(number, servers, counters)
        self.main = self.versions[route.aliases.get(CHAMPION, route.version)]
        ordered = sorted(route.weights, key=lambda v: (v != route.version, -route.weights[v]))
        self.sharing = [self.versions[v] for v in ordered if route.weights[v]]
        self.closed = route.access == "keys"
        self._balance: Balance = Balance(route.weights, before._balance if before else None)

    @property
    def backends(self) -> dict[Path, Backend]:
        """All servers of all versions."""
        return {b.path: b for version in self.versions.values() for b in version.backends}

    @property
    def shares(self) -> Mapping[int, float]:
        """Version -> its share of the requests, the greatest first; those that have none are not
        in it."""
        return self._balance.shares

    def next(self) -> LiveVersion:
        """The version that has this turn."""
        return self.versions[self._balance.next()]
