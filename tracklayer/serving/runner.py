"""Where a model computes: in the event loop while it is cheap, else in threads of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeAlias

from tracklayer.serving.http import Headers, Infer, Reply
from tracklayer.serving.model import Call, Model, RequestError

log = logging.getLogger(__name__)

_SMALL = 8 << 10
"""Bytes of a body that may be answered in the event loop."""

_TURN = 16
"""Of those, how many run before the event loop looks at its connections again."""

_PATIENCE = 0.05
"""Seconds that the event loop waits for a model that used to be cheap, before it is ended there."""

_DEAR = 1.0
"""Seconds that are noted for such a one. It takes some 80 cheap requests to be forgotten."""


class Job:
    """One inference: what was asked, and the handle that ends it."""

    __slots__ = ("body", "call", "headers", "infer")

    def __init__(self, infer: Infer | None, body: bytes, headers: Headers) -> None:
        self.infer = infer
        self.body = body
        self.headers = headers
        self.call: Call | None = None

    def end(self) -> None:
        """Nobody waits for it any more: it is not begun, or ends, and its body is let go."""
        self.infer, self.body = None, b""
        if self.call:
            self.call.terminate = True


Outcome: TypeAlias = Reply | RequestError

Done: TypeAlias = Callable[[Any, Outcome], None]
"""Told of a job and its outcome, in the event loop."""


class Runner:
    """Runs the inferences of one model.

    :param threads: inferences at a time outside the event loop.
    :param inline: seconds that recent inferences may have taken for the next to run in the event
        loop, because the way to a thread and back costs more; 0: none does.
    """

    def __init__(self, model: Model, *, threads: int, inline: float, watch: Watch) -> None:
        self._model = model
        self._inline = inline if getattr(model, "interruptible", False) else 0.0
        self._watch = watch
        self._cost = float("inf")
        self._ready: list[tuple[Job, Done]] = []
        self._jobs: SimpleQueue[tuple[Job, Done]] = SimpleQueue()
        self._threads = threads
        self._started = 0
        self._pending = 0

    def start(self, job: Job, done: Done) -> None:
        """Run it, and tell ``done`` later. To be called in the event loop."""
        job.call = self._model.call()
        if self._cost < self._inline and len(job.body) <= _SMALL and not self._pending:
            # All that came in one turn of the loop are run one after another at its end: the code
            # of the parser and that of the model take turns in the processor's caches less often.
            if not self._ready:
                asyncio.get_running_loop().call_soon(self._run_ready)
            self._ready.append((job, done))
        else:
            self._put(job, done)

    @property
    def busy(self) -> bool:
        """Whether a thread computes, or has jobs that wait."""
        return self._pending > 0

    def warm_up(self, infer: Infer, request: bytes) -> None:
        """Answer twice: the first pays for what is lazy.

        :raises RequestError: the model cannot answer it.
        """
        for _ in range(2):
            begin = time.thread_time()
            infer(request, {}, self._model.call())
            self._cost = time.thread_time() - begin

    def _run_ready(self) -> None:
        ready, self._ready = self._ready[:_TURN], self._ready[_TURN:]
        if self._ready:
            asyncio.get_running_loop().call_soon(self._run_ready)
        answered: list[tuple[Job, Done, Outcome]] = []
        for job, done in ready:
            if self._cost < self._inline:
                outcome = self._watch.over(job, self._outcome)
                if outcome is not None:
                    answered.append((job, done, outcome))
                    continue
                self._cost = _DEAR
                job.call = self._model.call()
            self._put(job, done)
        for job, done, outcome in answered:
            done(job, outcome)

    def _put(self, job: Job, done: Done) -> None:
        self._pending += 1
        if self._started < min(self._threads, self._pending):
            self._started += 1
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._work, args=(loop,), daemon=True).start()
        self._jobs.put((job, done))

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            job, done = self._jobs.get()
            outcome = self._outcome(job)
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(self._settle, job, done, outcome)

    def _settle(self, job: Job, done: Done, outcome: Outcome) -> None:
        self._pending -= 1
        done(job, outcome)

    def _outcome(self, job: Job) -> Outcome:
        """Answer, and note the cost: the longest of the recent requests decides where they run.

        In time of the processor: what else the machine does makes no model expensive.
        """
        infer, call = job.infer, job.call
        if infer is None or call is None:
            return RequestError(499, "nobody waits for this answer")
        begin = time.thread_time()
        try:
            reply = infer(job.body, job.headers, call)
        except RequestError as refused:
            return refused
        except Exception:
            log.exception("an inference failed")
            return RequestError(500, "the server failed on this request")
        self._cost = max(time.thread_time() - begin, self._cost * 0.9)
        return reply


class Watch:
    """Ends an inference that blocks the event loop. It looks on only while requests come."""

    def __init__(self) -> None:
        self._call: Call | None = None
        self._asleep = True
        self._wake = threading.Event()
        self._started = False

    def over(self, job: Job, run: Callable[[Job], Outcome]) -> Outcome | None:
        """Run a job in the event loop; None if it had to be ended."""
        self._call = call = job.call
        if self._asleep:
            self._rouse()
        outcome = run(job)
        self._call = None
        return None if call is not None and call.terminate else outcome

    def _rouse(self) -> None:
        if not self._started:
            self._started = True
            threading.Thread(target=self._look, name="watch", daemon=True).start()
        self._wake.set()

    def _look(self) -> None:
        before: Call | None = None
        quiet = 0
        while True:
            self._asleep = quiet * _PATIENCE > 1
            # Asked after it is said that nobody looks: a call that comes now wakes us.
            if self._asleep and self._call is None:
                self._wake.wait()
            self._asleep = False
            self._wake.clear()
            time.sleep(_PATIENCE)
            call = self._call
            quiet = quiet + 1 if call is None else 0
            if call is not None and call is before:
                call.terminate = True
            before = call
