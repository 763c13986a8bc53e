"""One project's stable address, and all that stands behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tracklayer.errors import ServiceError
from tracklayer.gateway.client import GatewayClient
from tracklayer.gateway.progress import Journal
from tracklayer.gateway.releases import Release, Releases
from tracklayer.gateway.routes import CHAMPION, Access, Route
from tracklayer.gateway.stats import VersionStats
from tracklayer.sockets import accepts
from tracklayer.tracking.ledger import Event, Ledger

if TYPE_CHECKING:
    from tracklayer.gateway.servers import Servers
    from tracklayer.serving import Golden

T = TypeVar("T")

_LIVE = ("live", "promote", "rollback", "found")
_BACK_WITHIN = 10.0  # seconds that a gateway may be away, since it is just being started again
_DRAIN = 30.0  # seconds in which servers answer what they have
_MOMENT = 0.2  # seconds for which a change may hold up another


@dataclass(frozen=True, slots=True)
class Author:
    """Who does something, and from where: an Airflow run, or a terminal.

    :param name: of a user of this machine, or of Airflow.
    :param run: the Airflow run.
    :param commit: of the project's files.
    """

    name: str
    run: str | None = None
    commit: str | None = None


class Endpoint:
    """A project's route, servers, releases, rollout and ledger.

    What changes the route is called within :meth:`Journal.changing`.
    """

    def __init__(
        self,
        project: str,
        *,
        gateway: GatewayClient,
        servers: Callable[[], Servers],
        releases: Releases,
        journal: Journal,
        ledger: Ledger,
    ) -> None:
        self.project = project
        self.releases = releases
        self.journal = journal
        self.ledger = ledger
        self._gateway = gateway
        self._servers = servers

    @cached_property
    def servers(self) -> Servers:
        """The model servers of all versions. Made when they are asked for: to go back to a version
        that is up takes none, and has to be quick."""
        return self._servers()

    def route(self) -> Route | None:
        """What the gateway does; None: it does not know the project.

        :raises ServiceError: the gateway is not there.
        """
        return self._gateway.routes().get(self.project)

    def live(self) -> int | None:
        """The champion; None: the gateway does not know the project.

        :raises ServiceError: the gateway is not there.
        """
        route = self.route()
        return champion_of(route) if route else None

    def ask(self, golden: Golden) -> None:
        """Ask the gateway the golden request as a user does, but without a key.

        :raises ServiceError: no answer, an error, or a wrong answer.
        """
        from tracklayer.gateway.servers import ask

        path = f"/{self.project}/v2/models/{self.project}/infer"
        with self._gateway.http() as client:
            ask(lambda body: client.post(path, json=body), golden)

    def stats(self) -> dict[int, VersionStats]:
        """What became of the requests since the gateway started, by version.

        :raises ServiceError: the gateway does not come back within ten seconds.
        """
        return patiently(lambda: self._gateway.stats(self.project))

    def give(
        self,
        weights: Mapping[int, int],
        *,
        champion: int | None = None,
        servers: Mapping[int, list[Path]] | None = None,
    ) -> None:
        """Divide the requests from now on. Versions without a share stay answerable by number.

        :param champion: the version of this alias, whose access the project then has; default: as
            it was.
        :param servers: of versions that are not in the route yet.
        :raises ServiceError: the gateway refused, or did not come back; all is as it was.
        """

        def give() -> None:
            route = self.route()
            known = {**(route.versions if route else {}), **(servers or {})}
            aliases = {} if route is None else dict(route.aliases)
            access = route.access if route else None
            if champion is not None:
                aliases[CHAMPION] = champion
                access = self._access(champion) or access
            self._put(known, weights, aliases, access)

        patiently(give)

    def take_out(self, version: int) -> None:
        """Take a version without a share off the gateway, then stop its servers.

        Not within :meth:`Journal.changing`: servers have time to answer what they have.

        :raises ServiceError: the gateway refused, or is not there.
        :raises PlatformError: a server does not end.
        """
        deadline = time.monotonic() + _DRAIN
        drained = False
        while not drained and time.monotonic() < deadline:
            with self.journal.changing():
                route = self.route()
                if route is None:
                    break
                if route.weights.get(version):
                    return
                rest = {v: paths for v, paths in route.versions.items() if v != version}
                aliases = {name: v for name, v in route.aliases.items() if v != version}
                drained = self._put(rest, route.weights, aliases, route.access)
        self.servers.stop(version)

    def past(self) -> list[int]:
        """The versions that answered users one after the other; the last is the one to go back
        from, the one before it the one to go back to. A version that was gone back from is no
        part of it.

        :raises TrackingError: the ledger cannot be read.
        """
        past: list[int] = []
        for entry in self.ledger.read().of(self.project):
            if entry.event == "rollback" and entry.version in past:
                del past[past.index(entry.version) + 1 :]
            elif entry.event in _LIVE and past[-1:] != [entry.version]:
                past.append(entry.version)
            elif past[-1:] == [entry.version] and entry.version not in entry.shares:
                past.pop()
        return past

    def keep_up(self, live: int, old: int | None, keep: int) -> None:
        """Stop all versions but the live one and the ``keep`` that answered before it.

        :raises TracklayerError: as :meth:`take_out` and :meth:`past`.
        """
        before = [*self.past(), *([] if old is None else [old])]
        lately = [v for v in dict.fromkeys(reversed(before)) if v != live]
        route = self.route()
        there = {*self.servers.versions(), *(route.versions if route else ())}
        for version in sorted(there - {live, *lately[:keep]}):
            self.take_out(version)

    def note(
        self,
        event: Event,
        version: int,
        weights: Mapping[int, int],
        author: Author,
        reason: str = "",
    ) -> None:
        """Add to the ledger.

        :raises TrackingError: it cannot be written.
        """
        release = self._release(version)
        self.ledger.append(
            self.project,
            event,
            version,
            weights,
            actor=author.name,
            run=author.run,
            commit=author.commit or (release.commit if release else None),
            digest=release.manifest if release else None,
            reason=reason,
        )

    def note_what_is_found(self, author: Author) -> None:
        """Note who answers, if that is not what was noted last: a deployer was killed between.

        :raises TrackingError: the ledger cannot be read or written.
        """
        route = self.route()
        entries = self.ledger.read().of(self.project)
        noted = entries[-1].shares if entries else {}
        found = _shares(route.weights) if route else {}
        if route and found != noted:
            self.note("found", route.version, route.weights, author)

    def _release(self, version: int) -> Release | None:
        return self.releases.load(version) if version in self.releases.versions() else None

    def _access(self, version: int) -> Access | None:
        release = self._release(version)
        return release.access if release else None

    def _put(
        self,
        known: Mapping[int, list[Path]],
        weights: Mapping[int, int],
        aliases: Mapping[str, int],
        access: Access | None,
    ) -> bool:
        """Whether nothing is in flight to servers that left."""
        versions = {v: paths if weights.get(v) else _up(paths) for v, paths in known.items()}
        versions = {v: paths for v, paths in versions.items() if paths}
        route = Route(
            versions=versions,
            weights={v: weight for v, weight in weights.items() if v in versions},
            aliases={name: v for name, v in aliases.items() if v in versions},
            access=access,
        )
        return self._gateway.route(self.project, route, drain=_MOMENT).drained


def champion_of(route: Route) -> int:
    """The version that answers users, whatever is being tried beside it."""
    return route.aliases.get(CHAMPION, route.version)


def patiently(call: Callable[[], T]) -> T:
    """Call again while the gateway is away, since the supervisor starts it again."""
    deadline = time.monotonic() + _BACK_WITHIN
    while True:
        try:
            return call()
        except ServiceError as error:
            refused = error.__cause__ is None  # else there was no answer
            if refused or time.monotonic() > deadline:
                raise
            time.sleep(_MOMENT)


def _up(paths: list[Path]) -> list[Path]:
    """A server that has ended holds up no change: the gateway takes none that does not answer."""
    return [path for path in paths if accepts(path)]


def _shares(weights: Mapping[int, int]) -> dict[int, float]:
    total = sum(weights.values())
    return {v: 100 * weight / total for v, weight in sorted(weights.items()) if weight}
