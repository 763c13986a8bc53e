"""What a person does to a project's versions: go back, and steer a rollout that is under way.

Each of these acts on the gateway itself and then tells the deployer, which looks several times a
second: nobody waits for a deployer that is busy, or dead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tracklayer.errors import ServiceError
from tracklayer.gateway.endpoint import Author, Endpoint, champion_of
from tracklayer.gateway.progress import Order, Progress
from tracklayer.gateway.routes import Route
from tracklayer.sockets import accepts
from tracklayer.tracking.ledger import Event


class Steering:
    """The person's side of :class:`tracklayer.gateway.rollout.Rollout`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._journal = endpoint.journal

    def rollback(
        self, to: int | None, author: Author, reason: str, say: Callable[[str], None]
    ) -> int:
        """Give all requests to an earlier version, at once if its servers are up.

        A rollout that is under way ends. The version that is gone back from stays up.

        :param to: a version; default: the one that answered before.
        :param say: told when servers have to be started first.
        :returns: the version that answers now.
        :raises ServiceError: there is nothing to go back to; what answers is as before.
        """
        with self._journal.changing() as progress:
            route = self._route()
            target, live = self._target(to, route, progress), champion_of(route)
            sockets = route.versions.get(target, [])
            ready = bool(sockets) and all(map(accepts, sockets))
            if ready:
                self._go_back(target, sockets, progress, author, reason)
        if not ready:
            release = self._endpoint.releases.load(target)
            say(f"The servers of version {target} are stopped: starting them from the store")
            sockets = self._endpoint.servers.start(release)
            with self._journal.changing() as progress:
                now = champion_of(self._route())
                if now == live:
                    self._go_back(target, sockets, progress, author, reason)
            if now != live:
                self._endpoint.take_out(target)
                raise ServiceError(
                    f"version {now} of {self._endpoint.project} answers since a moment ago, "
                    f"instead of version {live}: nothing was changed"
                )
        self._clear_up(lambda left: self._endpoint.take_out(left.version))
        return target

    def promote(self, author: Author) -> tuple[int, bool]:
        """Give all requests to the version that is being rolled out, whatever the gates say.

        :returns: the version, and whether it has them: else its deployer gives them to it as soon
            as it is proved right.
        :raises ServiceError: no rollout is under way, or its version was never proved right.
        """
        with self._journal.changing() as progress:
            now = self._under_way(progress)
            route = self._endpoint.route()
            up = route is not None and now.version in route.versions
            if not up and not self._deployed():
                raise _killed(now)
            self._order(now, "promote", author)
            if up:
                self._endpoint.give({now.version: 100}, champion=now.version)
                self._endpoint.note("promote", now.version, {now.version: 100}, author)
        self._clear_up(lambda left: self._endpoint.keep_up(left.version, left.old, left.keep))
        return now.version, up

    def pause(self, author: Author) -> Progress:
        """Keep the shares as they are; the gates go on judging.

        :raises ServiceError: no rollout is under way.
        """
        return self._hold("pause", author)

    def resume(self, author: Author) -> Progress:
        """Let a paused rollout go on.

        :raises ServiceError: no rollout is paused.
        """
        return self._hold("go", author)

    def _hold(self, order: Order, author: Author) -> Progress:
        with self._journal.changing() as progress:
            now = self._under_way(progress)
            if not self._deployed():
                raise _killed(now)
            if order == "go" and now.order != "pause":
                raise ServiceError(
                    f"the rollout of {self._endpoint.project} {now.version} is not paused"
                )
            if now.order != order:
                self._order(now, order, author)
                event: Event = "pause" if order == "pause" else "resume"
                self._endpoint.note(event, now.version, self._route().weights, author)
        return now

    def _target(self, to: int | None, route: Route, progress: Progress | None) -> int:
        project, live = self._endpoint.project, champion_of(route)
        if to is not None:
            if progress and to == progress.version:
                raise ServiceError(
                    f"version {to} of {project} is just being deployed",
                    hint="`tracklayer promote` gives it all requests now.",
                )
            if to == live and not progress:
                raise ServiceError(f"version {to} of {project} answers already")
            return to
        if progress:
            target = progress.old
        else:
            past = [v for v in self._endpoint.past() if v != live]
            kept = [v for v in route.versions if v < live]
            target = next(iter([*reversed(past), *sorted(kept, reverse=True)]), None)
        if target is None:
            known = ", ".join(str(v) for v in self._endpoint.releases.versions() if v != live)
            raise ServiceError(
                f"no version of {project} answered before version {live}",
                hint=f"Name one with --to: {known}." if known else None,
            )
        return target

    def _go_back(
        self,
        target: int,
        sockets: list[Path],
        progress: Progress | None,
        author: Author,
        reason: str,
    ) -> None:
        self._endpoint.give({target: 100}, champion=target, servers={target: sockets})
        if progress:
            self._order(progress, "back", author, reason)
        self._endpoint.note("rollback", target, {target: 100}, author, reason)

    def _order(self, now: Progress, order: Order, author: Author, reason: str = "") -> None:
        by = f"{author.name}: {reason}" if reason else author.name
        self._journal.write(now.model_copy(update={"order": order, "by": by}))

    def _clear_up(self, clear: Callable[[Progress], None]) -> None:
        """Do what a deployer that was killed can no longer do."""
        if self._journal.read() is None:
            return
        with self._journal.unless_deployed() as alone:
            if alone and (left := self._journal.read()):
                clear(left)
                with self._journal.changing():
                    self._journal.write(None)

    def _deployed(self) -> bool:
        """Is a deployer alive?"""
        with self._journal.unless_deployed() as alone:
            return not alone

    def _route(self) -> Route:
        if (route := self._endpoint.route()) is None:
            raise ServiceError(
                f"no version of {self._endpoint.project} answers",
                hint=f"A run deploys one: `tracklayer run {self._endpoint.project}`.",
            )
        return route

    def _under_way(self, progress: Progress | None) -> Progress:
        if progress is None:
            raise ServiceError(
                f"no rollout of {self._endpoint.project} is under way",
                hint=f"`tracklayer history {self._endpoint.project}` shows what was.",
            )
        return progress


def _killed(now: Progress) -> ServiceError:
    return ServiceError(
        f"who deployed version {now.version} was killed",
        hint="Run it again, and it goes on; or go back with `tracklayer rollback`.",
    )
