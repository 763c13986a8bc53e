"""Adaptive micro-batching: requests that wait while a model is busy are run as one.

Nobody waits for company while the model is idle. A model is only wrapped if :func:`pays` has seen
that its answers do not depend on the company, and that the company saves time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from tracklayer.serving.metrics import SIZES, Histogram
from tracklayer.serving.model import Array, Call, Model, RequestError, Signature
from tracklayer.serving.verification import ABSOLUTE, RELATIVE

_PROBE = 4
"""Requests in the batch that is timed."""

_WORTH = 100e-6
"""Seconds that a request in company must save: what the way through threads costs."""

_DEAR = 0.25
"""Seconds that a run may take for a batch to be timed at the start."""

_TIMES, _TIME = 7, 0.1
"""How often each is timed at most, and for how many seconds in all: a busy machine decides nothing,
and a start takes no longer for it."""

_GATHER = 0.25
"""Of the time of the last run, so much may be waited for as many requests as that one had."""


class Batched:
    """A model whose runs are joined.

    :param slots: runs at a time.
    :param most: rows of a run of several requests.
    :param delay: seconds that a run may be put off after another, for requests that follow on it.
    """

    interruptible = False

    def __init__(self, model: Model, *, slots: int, most: int, delay: float) -> None:
        self.platform = model.platform
        self.signature = model.signature
        self.sizes = Histogram(SIZES)
        self._model = model
        self._most = most
        self._delay = delay
        self._free = slots
        self._last = (0, 0.0)
        self._waiting: list[_Part] = []
        self._arrived = threading.Condition()

    def call(self) -> _Call:
        """A handle with which a run can be ended, and those that it shares."""
        return _Call()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        """The named outputs; see :class:`tracklayer.serving.model.Model`."""
        part = _Part(feeds, outputs, call)
        with self._arrived:
            idle = self._free > 0
            if idle:
                self._free -= 1
            else:
                self._waiting.append(part)
                self._arrived.notify()
        batch = [part]
        if not idle:
            part.turn.acquire()
            if part.answered:
                return part.result()
            batch = self._gather(part)
        try:
            self._run(batch)
        finally:
            self._pass_on(batch)
        return part.result()

    def _run(self, batch: Sequence[_Part]) -> None:
        begin = time.perf_counter()
        wanted = [part for part in batch if not part.call.terminate]
        if len(wanted) > 1:
            self._run_joined(wanted)
        for part in batch:
            part.run_alone(self._model)
        self._last = (len(batch), time.perf_counter() - begin)

    def _run_joined(self, batch: Sequence[_Part]) -> None:
        """One run for all. If it fails, as when one of them makes it fail, all are as before."""
        first = batch[0]
        call = self._model.call()
        joined = {
            name: np.concatenate([part.feeds[name] for part in batch]) for name in first.feeds
        }
        for part in batch:
            part.share(call)
        try:
            results = self._model.run(joined, first.outputs, call)
        except RequestError:
            return
        ends = np.cumsum([part.rows for part in batch])
        if any(len(result) != ends[-1] for result in results):
            return
        split = [np.split(result, ends[:-1]) for result in results]
        for index, part in enumerate(batch):
            part.results = [pieces[index] for pieces in split]

    def _pass_on(self, batch: Sequence[_Part]) -> None:
        """Let the others of this batch go, and the first of those that wait run the next one."""
        for part in batch[1:]:
            part.turn.release()
        with self._arrived:
            self.sizes.observe(len(batch))
            if self._waiting:
                self._waiting.pop(0).turn.release()
            else:
                self._free += 1

    def _gather(self, first: _Part) -> list[_Part]:
        """A batch: one that has waited, and all that fit to it.

        Whoever was just answered tends to ask again, so as many as last time are waited for.
        """
        with self._arrived:
            requests, seconds = self._last
            until = time.perf_counter() + min(self._delay, seconds * _GATHER)
            while len(self._waiting) + 1 < requests:
                left = until - time.perf_counter()
                if left <= 0 or not self._arrived.wait(left):
                    break
            batch, others, rows = [first], [], first.rows
            for part in self._waiting:
                if part.kind == first.kind and rows + part.rows <= self._most:
                    batch.append(part)
                    rows += part.rows
                else:
                    others.append(part)
            self._waiting = others
        return batch


class _Call:
    """Ends the run that its request is part of."""

    def __init__(self) -> None:
        self._terminate = False
        self._running: Call | None = None

    @property
    def terminate(self) -> bool:
        """Whether it was ended."""
        return self._terminate

    @terminate.setter
    def terminate(self, value: bool) -> None:
        self._terminate = value
        if self._running:
            self._running.terminate = value

    def attach(self, running: Call) -> None:
        """``running`` computes for this one too."""
        self._running = running
        if self._terminate:
            running.terminate = True


class _Part:
    """One request in a batch, and its outcome. ``turn`` is held until it has one, or leads."""

    def __init__(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> None:
        self.feeds = feeds
        self.outputs = outputs
        self.call = call
        self.rows = len(next(iter(feeds.values())))
        self.kind = (tuple(outputs), {name: array.shape[1:] for name, array in feeds.items()})
        self.turn = threading.Lock()
        self.turn.acquire()
        self.results: list[Array] | None = None
        self.error: BaseException | None = None

    @property
    def answered(self) -> bool:
        """Whether somebody else ran it."""
        return self.results is not None or self.error is not None

    def share(self, call: Call) -> None:
        """The run of ``call`` is this one's too."""
        assert isinstance(self.call, _Call)
        self.call.attach(call)

    def run_alone(self, model: Model) -> None:
        """Its own run, if it has no outcome yet; what goes wrong is its own too."""
        if self.answered:
            return
        if self.call.terminate:
            self.error = RequestError(499, "nobody waits for this answer")
            return
        call = model.call()
        self.share(call)
        try:
            self.results = model.run(self.feeds, self.outputs, call)
        except BaseException as error:  # noqa: BLE001 - raised again in the request's own thread
            self.error = error

    def result(self) -> list[Array]:
        """
        :raises RequestError: as the model's run.
        """
        if self.error:
            raise self.error
        assert self.results is not None
        return self.results


def joinable(signature: Signature) -> bool:
    """Does every input and every output have the same free first axis?"""
    tensors = (*signature.inputs, *signature.outputs)
    firsts = {tensor.dims[0] if tensor.dims else 0 for tensor in tensors}
    return len(firsts) == 1 and type(next(iter(firsts))) is str


def pays(model: Model, feeds: Mapping[str, Array]) -> bool:
    """Whether requests like ``feeds`` are answered alike in company, and sooner.

    Two different requests are run alone and joined, and a batch is timed. Where no second one can
    be made of the first, there is nothing to compare: no.
    """
    if not joinable(model.signature):
        return False
    other = {name: _changed(array) for name, array in feeds.items()}
    outputs = model.signature.output_names
    try:
        alone = [model.run(each, outputs, model.call()) for each in (feeds, other)]
        if _seconds(model, feeds) > _DEAR or _same(*alone):
            return False
        both = model.run(_joined([feeds, other]), outputs, model.call())
        if not _same([np.concatenate(pair) for pair in zip(*alone, strict=True)], both):
            return False
        batch = _joined([feeds] * _PROBE)
        model.run(batch, outputs, model.call())
        single, together = _least(model, feeds, batch)
    except (RequestError, ValueError):
        return False
    return single - together / _PROBE > max(_WORTH, single / 4)


def _seconds(model: Model, feeds: Mapping[str, Array]) -> float:
    begin = time.perf_counter()
    model.run(feeds, model.signature.output_names, model.call())
    return time.perf_counter() - begin


def _least(model: Model, *requests: Mapping[str, Array]) -> list[float]:
    """The least seconds that each of some requests took, in turns: what else the machine does
    makes a run longer, and never shorter."""
    begin = time.perf_counter()
    found = [_seconds(model, feeds) for feeds in requests]
    for _ in range(_TIMES - 1):
        if time.perf_counter() - begin > _TIME:
            break
        found = [
            min(known, _seconds(model, feeds)) for known, feeds in zip(found, requests, strict=True)
        ]
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _changed(array: Array) -> Array:
    """Other values of the same kind: what the model takes of one, it should take of the other."""
    if array.dtype.kind == "O":
        flat = [text[::-1] if isinstance(text, str) else text for text in array.ravel().tolist()]
        changed = np.empty(array.size, dtype=object)
        changed[:] = flat
        return changed.reshape(array.shape)
    if array.dtype.kind == "f":
        return (array[..., ::-1] / 2).astype(array.dtype) if array.ndim else array
    return np.ascontiguousarray(array[..., ::-1])


def _same(some: Sequence[Array], others: Sequence[Array]) -> bool:
    return all(
        one.shape == other.shape
        and (
            np.allclose(one, other, RELATIVE, ABSOLUTE)
            if one.dtype.kind == "f"
            else bool((one == other).all())
        )
        for one, other in zip(some, others, strict=True)
    )
