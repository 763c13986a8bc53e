"""How a new version of a project's model takes over: started, proved right, tried, gone live.

The old version goes on serving until the new one has answered the golden request rightly, and its
servers stay up while the new one is watched. A new version that is worse is taken back at once.
Every step can be done again: a rollout that was killed leaves whole versions serving, and the next
one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tracklayer.errors import ServiceError, TracklayerError
from tracklayer.gateway.endpoint import Author, Endpoint
from tracklayer.gateway.gates import describe, judge
from tracklayer.gateway.progress import Progress
from tracklayer.gateway.releases import Release
from tracklayer.gateway.servers import BusyError
from tracklayer.gateway.stats import VersionStats

if TYPE_CHECKING:
    from tracklayer.spec import Deploy

Say = Callable[[str], None]

_BAKE = {"canary": 60.0, "rolling": 2.0}  # seconds, unless the spec says more
_POLL = 0.2  # seconds between two judgements
_REPORT = 10.0  # seconds between two lines of the log
_GOLDEN = 1.0  # seconds between two golden requests
_LITTLE = 50
"""Requests of the old version within a step that are too few to compare with: then all that it was
asked since the gateway started are taken."""


class Rollout:
    """The deployer of one project. One rollout at a time: a second one waits."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._journal = endpoint.journal
        self._cancelled: str | None = None

    def deploy(self, release: Release, plan: Deploy, author: Author, say: Say) -> int | None:
        """Let a version take over, as the spec says.

        :param say: gets a line for each step, and while one is watched.
        :returns: the version that answered before and can be gone back to; None if there was none,
            or it was this one.
        :raises ServiceError: the version did not become ready and right, or was worse, or a person
            went back: the old version answers as before, and the servers of the new one are
            stopped.
        :raises TrackingError: the ledger cannot be written.
        """
        with self._journal.deploying(lambda: say(self._waiting())):
            progress = self._begin(release, plan, author, say)
            try:
                self._try(progress, release, plan, author, say)
            except BaseException as error:
                self._give_up(progress, author, say, error)
                raise
            self._endpoint.keep_up(progress.version, progress.old, plan.keep)
            with self._journal.changing():
                self._journal.write(None)
            return progress.old

    def cancel(self, reason: str) -> None:
        """Let :meth:`deploy` go back as soon as it looks up. Safe in a signal's handler."""
        self._cancelled = reason

    def _begin(self, release: Release, plan: Deploy, author: Author, say: Say) -> Progress:
        endpoint = self._endpoint
        with self._journal.changing() as left:
            if left and left.version != release.version:
                reason = f"the rollout of version {left.version} was killed"
                say(f"{reason[0].upper()}{reason[1:]}: {_answers(left.old)}")
                self._back(left, author, reason)
            endpoint.note_what_is_found(author)
            endpoint.releases.save(release)
            live = endpoint.live()
            if left and left.version == release.version:
                say(f"Going on with the rollout of version {left.version} at {left.share}%")
                progress = left
            else:
                old = None if live == release.version else live
                progress = Progress(
                    version=release.version, old=old, keep=plan.keep, actor=author.name
                )
                route = endpoint.route()
                endpoint.note("deploy", release.version, route.weights if route else {}, author)
                self._journal.write(progress)
        if left and left.version != release.version:
            endpoint.take_out(left.version)
        return progress

    def _try(
        self, progress: Progress, release: Release, plan: Deploy, author: Author, say: Say
    ) -> None:
        rollout, old = plan.rollout, progress.old
        steps = rollout.steps if rollout.strategy == "canary" else [100]
        if old is None:  # nothing to compare with, and nobody else to ask
            steps = []
        bake = _BAKE[rollout.strategy] if rollout.bake is None else float(rollout.bake)
        sockets = self._endpoint.servers.start(release)
        say(f"Version {release.version} is ready and right on {_counted(len(sockets), 'server')}")
        for index, share in enumerate(steps):
            if index < progress.step or old is None:
                continue
            weights = {release.version: share, old: 100 - share}
            with self._journal.changing() as now:
                self._obey(now)
                if now is None or now.order == "promote":
                    break
                base = self._endpoint.stats()
                self._endpoint.give(weights, servers={release.version: sockets})
                self._endpoint.note("step", release.version, weights, author)
                self._journal.write(now.model_copy(update={"step": index, "share": share}))
            rest = f", version {old} the rest" if share < 100 else ""
            say(
                f"Step {index + 1} of {len(steps)}: version {release.version} gets {share}% of the "
                f"requests for {bake:g} s{rest}"
            )
            self._watch(release, old, share, bake, plan, base, say)
        with self._journal.changing() as now:
            self._obey(now)
            self._endpoint.give(
                {release.version: 100},
                champion=release.version,
                servers={release.version: sockets},
            )
            self._endpoint.note("live", release.version, {release.version: 100}, author)
        say(f"Version {release.version} answers all requests")

    def _watch(
        self,
        release: Release,
        old: int,
        share: int,
        bake: float,
        plan: Deploy,
        base: dict[int, VersionStats],
        say: Say,
    ) -> None:
        """Judge the version until its time is over.

        :raises ServiceError: it is worse, or a person went back.
        """
        gates, version = plan.rollout.gates, release.version
        left, last = bake, time.monotonic()
        asked, reported, heard = last, last + _REPORT, "go"
        while True:
            progress = self._journal.read()
            self._obey(progress)
            order = progress.order if progress else "go"
            if order == "promote":
                return
            stats = self._endpoint.stats()
            new, other = _window(stats, base, version), _window(stats, base, old)
            if other.requests < _LITTLE:
                other = stats.get(old, VersionStats())
            if reason := judge(new, other, gates, final=left <= 0):
                raise ServiceError(f"version {version} at {share}%: {reason}")
            if gates.golden and (left <= 0 or time.monotonic() >= asked):
                asked = time.monotonic() + self._ask(release)
            done = left <= 0 and order != "pause"
            if done or order != heard or time.monotonic() >= reported:
                waits = "its time is over" if done else f"{left:.0f} s left"
                if order == "pause" and progress:
                    waits = f"paused by {progress.by}"
                say(
                    f"Version {version} ({share}%): {describe(new)}; "
                    f"version {old}: {describe(other)}; {waits}"
                )
                reported, heard = time.monotonic() + _REPORT, order
            if done:
                return
            time.sleep(_POLL)
            now = time.monotonic()
            if order != "pause":
                left -= now - last
            last = now

    def _ask(self, release: Release) -> float:
        """Ask the golden request; seconds until it is asked again, so that it is little work.

        :raises ServiceError: a server answered wrongly, or not at all.
        """
        begun = time.monotonic()
        with suppress(BusyError):  # with users' requests; what becomes of those is judged
            self._endpoint.servers.prove(release)
        return max(_GOLDEN, 20 * (time.monotonic() - begun))

    def _give_up(self, progress: Progress, author: Author, say: Say, error: BaseException) -> None:
        reason = error.message if isinstance(error, TracklayerError) else type(error).__name__
        try:
            with self._journal.changing() as now:
                if now is None or now.order != "back":
                    self._back(progress, author, reason.splitlines()[0])
            if progress.old is not None or self._endpoint.live() != progress.version:
                self._endpoint.take_out(progress.version)
            with self._journal.changing():
                self._journal.write(None)
            say(f"Version {progress.version} was taken back: {_answers(progress.old)}")
        except TracklayerError as second:
            say(f"To take back version {progress.version} failed as well: {second}")

    def _back(self, progress: Progress, author: Author, reason: str) -> None:
        route = self._endpoint.route()
        if progress.old is not None and route and progress.old in route.versions:
            self._endpoint.give({progress.old: 100}, champion=progress.old)
            weights = {progress.old: 100}
        else:
            weights = dict(route.weights) if route else {}
        self._endpoint.note("abort", progress.version, weights, author, reason)

    def _obey(self, progress: Progress | None) -> None:
        """:raises ServiceError: it was ended, or a person went back to another version."""
        if self._cancelled:
            raise ServiceError(f"the rollout was ended: {self._cancelled}")
        if progress and progress.order == "back":
            raise ServiceError(
                f"the rollout of version {progress.version} was ended by {progress.by}"
            )

    def _waiting(self) -> str:
        other = self._journal.read()
        what = f" of version {other.version} by {other.actor}" if other else ""
        return f"Waiting until another rollout{what} has ended"


def _window(
    now: dict[int, VersionStats], base: dict[int, VersionStats], version: int
) -> VersionStats:
    """What was counted since ``base``; all of it, if the gateway was started anew since."""
    found, earlier = now.get(version, VersionStats()), base.get(version)
    return found.since(earlier) if earlier else found


def _answers(old: int | None) -> str:
    return f"version {old} answers as before" if old is not None else "no version answers"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
