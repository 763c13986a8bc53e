"""Brings remote files into the store: many at a time, large ones in parts, until all are right."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from tracklayer.errors import SourceError
from tracklayer.sources.http import Client, Unavailable
from tracklayer.sources.incoming import Again, Incoming
from tracklayer.sources.progress import Meter
from tracklayer.sources.promise import Wrong, check_room
from tracklayer.sources.protocol import Limits, Remote
from tracklayer.sources.spans import Span
from tracklayer.store import Blob, Store

_TICK = 0.1  # seconds
_WRONGS = 2  # wrong bytes once may be a mishap

Arrived = Callable[[Remote, Blob], None]


def transfer(
    remotes: Sequence[Remote], store: Store, meter: Meter, limits: Limits, arrived: Arrived
) -> None:
    """Fetch and verify remote files, all or an error.

    What had come before an error, also of a large file in part, is there for the next time.

    :param arrived: called with each file when it is in the store, from any thread, one at a time.
    :raises SourceError: one cannot be had, or is not what was promised.
    :raises StoreError: the store is full or not writable.
    """
    if remotes:
        _Engine(remotes, store, meter, limits, arrived).run()


class _Engine:
    """Threads that take the next thing to ask for, until nothing is left or one has failed."""

    def __init__(
        self,
        remotes: Sequence[Remote],
        store: Store,
        meter: Meter,
        limits: Limits,
        arrived: Arrived,
    ) -> None:
        self._limits, self._meter, self._arrived = limits, meter, arrived
        jobs = [Incoming(remote, store, limits, meter) for remote in remotes]
        jobs.sort(key=lambda job: -1 if job.size is None else job.size, reverse=True)
        self._large = deque(job for job in jobs if job.large)
        self._small = deque(job for job in jobs if not job.large)
        self._jobs, self._left = jobs, len(jobs)
        self._open: set[Incoming] = set()
        self._streams = 0
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._not_before = 0.0
        self._client = Client(limits)
        size = sum(job.size or 0 for job in jobs)
        self._seconds = limits.seconds + size / limits.slowest
        check_room("what is to be fetched", size, store.root)

    def run(self) -> None:
        wanted = len(self._small) + (self._limits.streams if self._large else 0)
        threads = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(min(self._limits.connections, wanted))
        ]
        deadline = time.monotonic() + self._seconds
        try:
            for thread in threads:
                thread.start()
            while not self._over.wait(_TICK):
                self._meter.tick()
                self._client.watch()
                if time.monotonic() > deadline:
                    raise SourceError(f"the fetch took longer than {self._seconds:.0f} s")
        finally:
            self._over.set()
            with self._changed:
                self._changed.notify_all()
            self._client.close()
            for thread in threads:
                if thread.ident:
                    thread.join()
            for job in self._jobs:
                job.release()
            self._meter.tick()
        if self._error:
            raise self._error

    def _work(self) -> None:
        try:
            while task := self._take():
                self._perform(*task)
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            with self._changed:
                self._error = self._error or error
                self._over.set()
                self._changed.notify_all()

    def _take(self) -> tuple[Incoming, Span | None, bool] | None:
        """The next thing to ask for: parts of files that are under way, then large files, then
        small ones; and whether it counts as a stream. Waits while there is none; None at the end.
        """
        with self._changed:
            while not self._over.is_set():
                if self._streams < self._limits.streams:
                    for job in self._open:
                        if span := job.spans.take(self._limits.streams):
                            return self._taken(job, span)
                    if self._large:
                        return self._taken(self._large.popleft(), None)
                if self._small:
                    job = self._small.popleft()
                    job.busy += 1
                    return job, None, False
                self._changed.wait()
        return None

    def _taken(self, job: Incoming, span: Span | None) -> tuple[Incoming, Span | None, bool]:
        job.busy += 1
        self._streams += 1
        return job, span, True

    def _perform(self, job: Incoming, span: Span | None, stream: bool) -> None:
        try:
            if span is None:
                span = job.first()
            if not job.complete:
                self._ask(job, span)
        except Again as why:
            self._begin_anew(job, str(why), job.restarts + 1 > self._limits.tries)
        except Wrong as why:
            self._mistaken(job, str(why))
        with self._changed:
            job.busy -= 1
            self._streams -= stream
            last = not job.busy and not self._over.is_set()
            if last and (job.stale or job.complete or job.blob):
                self._open.discard(job)
            else:
                last = False
            self._changed.notify_all()
        if last:
            self._settle(job)

    def _ask(self, job: Incoming, span: Span | None) -> None:
        """Ask until all of it is there; what is missing of a span grows less with each try."""
        tries = 0
        while not self._over.is_set() and not job.stale:
            left = len(span) if span else 0
            try:
                self._once(job, span)
                return
            except Unavailable as error:
                progressed = span is not None and len(span) < left
                tries = 1 if progressed else tries + 1
                if tries >= self._limits.tries and not self._over.is_set():
                    raise SourceError(
                        f"{job.shown} could not be fetched (try {tries}): {error}",
                        hint="Is the address right, and can this machine reach it?",
                    ) from None
                if job.whole:
                    span = None
                self._pause(job, tries, error)

    def _once(self, job: Incoming, span: Span | None) -> None:
        self._over.wait(self._not_before - time.monotonic())
        asked = job.place()
        with self._client.get(asked, job.headers(span)) as (response, place):
            part = job.accept(response, asked, place, span)
            body = self._client.body(response, place)
            if not part:
                job.read_whole(body)
            elif span is not None:
                with self._changed:
                    self._open.add(job)
                    self._changed.notify_all()
                job.read_span(body, span)

    def _pause(self, job: Incoming, tries: int, error: Unavailable) -> None:
        limits = self._limits
        backoff = limits.backoff * 2 ** (tries - 1) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        pause = min(max(backoff, error.after), limits.pause)
        if error.after:  # the server speaks to all of our connections
            self._not_before = max(self._not_before, time.monotonic() + pause)
        if not self._over.is_set():
            self._meter.say(f"{job.shown}: {error}; again in {pause:.1f} s")
        self._over.wait(pause)

    def _begin_anew(self, job: Incoming, why: str, enough: bool) -> None:
        with self._changed:
            if job.stale:
                return
            job.stale = True
            job.restarts += 1
        if enough:
            raise SourceError(
                f"{job.shown} could not be fetched: {why}, {job.restarts} times",
                hint="What stands at the address must not change while it is being fetched.",
            )
        self._meter.say(f"{job.shown}: {why}; from the start")

    def _mistaken(self, job: Incoming, why: str) -> None:
        job.wrongs += 1
        if job.wrongs == _WRONGS:
            raise SourceError(
                f"{job.shown} is not what was pinned: {why}",
                hint="It was changed, or damaged on the way. Pin what is there now only if you "
                "trust who changed it.",
            )
        self._begin_anew(job, why, enough=False)

    def _settle(self, job: Incoming) -> None:
        """The last one on a file makes it whole, or begins it anew. Nobody else has it now."""
        if not job.stale:
            try:
                blob = job.blob or job.finish()
            except Wrong as why:
                self._mistaken(job, str(why))
            else:
                with self._changed:
                    self._arrived(job.remote, blob)
                    self._left -= 1
                    if not self._left:
                        self._over.set()
                    self._changed.notify_all()
                return
        job.restart()
        with self._changed:
            (self._large if job.large else self._small).append(job)
            self._changed.notify_all()
