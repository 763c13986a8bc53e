"""Candidates are built, held against the model as it was registered, timed; the fastest is taken.

A candidate is allowed if its answers keep to the error budget on held-out rows. Without held-out
rows only those are allowed that compute in FP32 as before and answer alike within rounding. It is
chosen if it is faster than the registered model by more than the noise: nothing slower is served.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.optimize import holdout, requests, timing
from tracklayer.optimize.accuracy import Error, Metric, measure
from tracklayer.optimize.candidates import CANDIDATES, REGISTERED
from tracklayer.optimize.network import lack
from tracklayer.optimize.process import CandidateError, Worker
from tracklayer.optimize.table import Row
from tracklayer.optimize.worker import MODEL
from tracklayer.serving import formats
from tracklayer.serving.model import Array, Signature
from tracklayer.serving.verification import ABSOLUTE, FILE, RELATIVE, request_for

BUDGET = 0.01
"""Error that is allowed where the spec names none."""

_ROUNDING = 1e-3
"""Relative error that is rounding: where the numbers are the same, and their order another."""

_TIMED, _BESIDE = 4, 8
_BUILD = 900.0
"""Seconds that a candidate may take until it has answered."""


@dataclass(frozen=True)
class Choice:
    """What was found.

    :param rows: the table, the registered model first.
    :param folder: the model folder that is to be served; None: the registered one.
    :param note: what limits the choice, for the log.
    """

    rows: list[Row]
    folder: Path | None
    note: str = ""

    @property
    def chosen(self) -> Row:
        """The row of what is to be served."""
        return next(row for row in self.rows if row.chosen)


@dataclass(frozen=True)
class Budget:
    """What a candidate's error may be, and by which metric (None: by what the outputs are)."""

    error: float = BUDGET
    metric: Metric | None = None


def choose(
    folder: Path,
    work: Path,
    *,
    data: Path | None = None,
    budget: Budget = Budget(),
    candidates: Sequence[str] = tuple(CANDIDATES),
    rounds: int = timing.ROUNDS,
    on_line: Callable[[str], None] = lambda _line: None,
) -> Choice:
    """Find the fastest way to serve the model in ``folder`` that keeps to the budget.

    :param work: an empty folder for what is built; the chosen model folder lies in it.
    :param data: file of held-out data; None: what lies in the model folder, if anything does.
    :param candidates: those that are tried.
    :param on_line: told what is going on.
    :raises ModelError: the registered model cannot be served, or the held-out data is no such.
    """
    if why := lack(folder):
        return Choice([Row("as registered", allowed=True, chosen=True)], None, why)
    model = formats.load(folder)
    signature, request = model.signature, request_for(model, folder)
    task = _Task(folder, work, signature, budget, data or holdout.find(folder))
    task.prepare(_feeds(model, request))
    del model
    with ExitStack() as workers:
        rows = {name: task.row(name, workers, on_line) for name in candidates}
        task.time(rows, rounds)
    chosen = task.pick(rows)
    rows[chosen] = replace(rows[chosen], chosen=True, why="")
    served = None
    if chosen != REGISTERED:
        served = work / chosen / MODEL
        (served / FILE).write_text(json.dumps(request))
    return Choice(list(rows.values()), served, task.note)


def _feeds(model: Any, request: Mapping[str, Any]) -> dict[str, Array]:
    from tracklayer.serving.open_inference import read

    return read(model, request)[0]


class _Task:
    """One model and its candidates.

    :param folder: the model as it was registered.
    :param work: for what is built.
    """

    def __init__(
        self, folder: Path, work: Path, signature: Signature, budget: Budget, data: Path | None
    ) -> None:
        self._folder, self._work = folder, work
        self._signature = signature
        self._budget = budget
        self._rows = holdout.read(data, signature) if data else None
        self._expected: dict[str, list[dict[str, Array]]] = {}
        self._workers: dict[str, Worker] = {}
        self._timings: dict[str, timing.Timing] = {}
        self._labels: Array | None = None
        self._sets = ["golden"]
        self.note = ""

    def prepare(self, golden: Mapping[str, Array]) -> None:
        """Write down what the candidates are asked."""
        self._put("golden", [golden])
        self._put("timed", [golden])
        if self._rows is None:
            self.note = (
                "There is no held-out data: only candidates in FP32 are allowed. "
                f"Leave {' or '.join(holdout.FILES)} in SM_MODEL_DIR, or name a source: "
                "deploy: {optimize: {data: <source>}}."
            )
            return
        size = self._batch()
        calibration, measured = self._rows.split()
        if len(measured) < size or len(calibration) < size:
            raise ModelError(f"the held-out data has only {len(self._rows)} rows")
        asked = list(measured.requests(size or 1))
        self._labels = None if measured.labels is None else measured.labels[: len(asked) * size]
        self._put("calibration", list(calibration.requests(size)))
        self._put("measured", asked)
        self._put("timed", [asked[at] for at in _spread(len(asked), _TIMED)])
        self._sets.append("measured")
        if self._is_free() and len(asked) > 1:
            self._put(
                "beside",
                list(
                    measured.take(np.arange(len(measured))[:_BESIDE]).requests(
                        min(_BESIDE, len(measured))
                    )
                ),
            )
            self._sets.append("beside")

    def row(self, name: str, workers: ExitStack, on_line: Callable[[str], None]) -> Row:
        """Build a candidate, have it answer, and judge it.

        :raises ModelError: it is the registered model, and it fails.
        """
        candidate = CANDIDATES[name]
        if lack := candidate.lack():
            return Row(name, why=f"not available: {lack}")
        if candidate.calibrated and self._rows is None:
            return Row(name, why="there is no held-out data to measure its error on")
        on_line(f"{name}: building")
        begun = time.monotonic()
        job = {"candidate": name, "registered": str(self._folder), "sets": self._sets}
        try:
            worker = Worker(self._work / name, job, seconds=_BUILD)
        except CandidateError as failed:
            if name == REGISTERED:
                raise ModelError(f"the registered model cannot be served: {failed}") from failed
            return Row(name, why=str(failed), seconds=round(time.monotonic() - begun, 1))
        workers.callback(worker.close)
        seconds = round(time.monotonic() - begun, 1)
        answers = {
            name: requests.load(worker.folder / f"{name}.npz", self._outputs) for name in self._sets
        }
        if name == REGISTERED:
            self._expected = answers
        error, why = self._judge(answers)
        if name == REGISTERED:
            self._doubt(error)
        if why:
            worker.close()
        else:
            self._workers[name] = worker
        return Row(
            name,
            size=worker.size,
            error=error.value if math.isfinite(error.value) else None,
            metric=error.metric,
            allowed=not why,
            why=why,
            seconds=seconds,
        )

    def time(self, rows: dict[str, Row], rounds: int) -> None:
        """Time those that are allowed; who fails meanwhile is allowed no more."""
        while True:
            passes = {name: _named(name, worker) for name, worker in self._workers.items()}
            try:
                self._timings = timing.interleaved(passes, rounds=rounds)
                break
            except _FailedError as failed:
                if failed.name == REGISTERED:
                    raise ModelError(f"the registered model cannot be served: {failed}") from failed
                del self._workers[failed.name]
                rows[failed.name] = replace(rows[failed.name], allowed=False, why=str(failed))
        base = self._timings[REGISTERED]
        for name, found in self._timings.items():
            rows[name] = replace(
                rows[name],
                median_ms=found.median * 1000,
                p95_ms=found.p95 * 1000,
                speedup=timing.speedup(found, base),
            )

    def pick(self, rows: dict[str, Row]) -> str:
        """The candidate that is to be served; the others are told why not."""
        base = self._timings[REGISTERED]
        faster = {
            name: timing.speedup(found, base)
            for name, found in self._timings.items()
            if name != REGISTERED and timing.is_faster(found, base)
        }
        best = max(faster, key=faster.__getitem__, default=REGISTERED)
        for name in self._timings:
            if name != best:
                why = (
                    f"{best} is faster"
                    if name in faster or name == REGISTERED
                    else (f"not faster than {REGISTERED} by more than the noise")
                )
                rows[name] = replace(rows[name], why=why)
        return best

    # What the above is made of

    def _judge(self, answers: Mapping[str, list[dict[str, Array]]]) -> tuple[Error, str]:
        """The error of a candidate's answers, and why it is too great, if it is."""
        golden = self._error("golden", answers)
        measured = self._error("measured", answers) if "measured" in answers else golden
        limit = self._budget.error if "measured" in answers else _ROUNDING
        if not measured.value <= limit:
            return measured, f"its error is above {limit:g}"
        # One that was made of the signature may be unlike anything that the model is for.
        if not golden.value <= limit and (limit == _ROUNDING or (self._folder / FILE).exists()):
            return measured, "it answers the golden request otherwise"
        if "beside" in answers and (name := self._changed(answers)):
            return measured, f"its {name} for a row changes with the rows beside it"
        return measured, ""

    def _doubt(self, error: Error) -> None:
        """Say so if one changed answer among the rows would already be above the budget."""
        rows = len(self._expected.get("measured", ())) * self._batch()
        if error.metric in ("accuracy", "top1") and 0 < rows < 1 / self._budget.error:
            self.note = (
                f"The error is measured on {rows} rows only: too few to tell one of "
                f"{self._budget.error:g}. Leave at least {2 / self._budget.error:.0f} rows."
            )

    def _error(self, name: str, answers: Mapping[str, list[dict[str, Array]]]) -> Error:
        metric, labels = self._budget.metric, self._labels
        if name == "golden":  # there are no labels for it, and one row has no accuracy
            metric, labels = (None if metric == "accuracy" else metric), None
        try:
            return measure(
                self._signature,
                self._expected[name],
                answers[name],
                metric=metric,
                labels=labels,
            )
        except ValueError as error:
            raise ModelError(f"deploy.optimize: {error}") from error

    def _changed(self, answers: Mapping[str, list[dict[str, Array]]]) -> str:
        """The first output that is not the same for a row alone and beside others."""
        [together] = answers["beside"]
        for name, values in together.items():
            alone = np.concatenate([one[name] for one in answers["measured"][: len(values)]])
            same = (
                np.isclose(values, alone, RELATIVE, ABSOLUTE)
                if values.dtype.kind == "f"
                else values == alone
            )
            if not same.all():
                return name
        return ""

    @property
    def _outputs(self) -> dict[str, Any]:
        return {tensor.name: tensor for tensor in self._signature.outputs}

    def _put(self, name: str, asked: Sequence[Mapping[str, Array]]) -> None:
        requests.save(self._work / f"{name}.npz", asked)

    def _is_free(self) -> bool:
        """May a request have any number of rows, each with an answer of its own?"""
        tensors = (*self._signature.inputs, *self._signature.outputs)
        return all(tensor.dims and isinstance(tensor.dims[0], str) for tensor in tensors)

    def _batch(self) -> int:
        """Rows of a request: 1, unless the model takes another number only."""
        fixed = {t.dims[0] for t in self._signature.inputs if isinstance(t.dims[0], int)}
        return max(fixed, default=1)


class _FailedError(CandidateError):
    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _named(name: str, worker: Worker) -> timing.Pass:
    def one() -> list[float]:
        try:
            return worker.timed()
        except CandidateError as error:
            raise _FailedError(name, str(error)) from error

    return one


def _spread(count: int, most: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(0, count - 1, most)})
