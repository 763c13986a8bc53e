"""What the candidates of one model are asked, how their answers are judged, and who is fastest."""

from __future__ import annotations

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
from tracklayer.optimize.accuracy import (
    Error,
    Metric,
    UnsuitedError,
    classes_of,
    is_finite,
    measure,
    right,
)
from tracklayer.optimize.candidates import CANDIDATES, REGISTERED
from tracklayer.optimize.process import CandidateError, LateError, Worker
from tracklayer.optimize.table import Row
from tracklayer.serving.model import Array, Signature
from tracklayer.serving.verification import ABSOLUTE, FILE, RELATIVE

BUDGET = 0.01
"""Error that is allowed where the spec names none."""

_ROUNDING = 1e-3
"""Relative error that is rounding: where the numbers are the same, and their order another."""

_TIMED, _BESIDE = 4, 8
_BUILD = 900.0
"""Seconds that a candidate may take until it has answered."""
_PATIENCE = 150.0
"""Seconds for the registered model to answer the rows of one set; what is not asked by then, no
candidate is asked."""


@dataclass(frozen=True)
class Budget:
    """What a candidate's error may be, and by which metric (None: by what the outputs are)."""

    error: float = BUDGET
    metric: Metric | None = None


class Task:
    """One model and its candidates: asked the same, judged, timed.

    :param folder: the model as it was registered.
    :param work: for what is built.
    """

    def __init__(
        self, folder: Path, work: Path, signature: Signature, budget: Budget, data: Path | None
    ) -> None:
        self._folder, self._work = folder, work
        self._signature = signature
        self._budget = budget
        self._metric = budget.metric
        self._rows = holdout.read(data, signature) if data else None
        self._expected: dict[str, list[dict[str, Array]]] = {}
        self._workers: dict[str, Worker] = {}
        self._timings: dict[str, timing.Timing] = {}
        self._labels: Array | None = None
        self._sets = ["golden"]
        self._as_it_is = ""
        self._notes: list[str] = []

    @property
    def note(self) -> str:
        """What limits the choice."""
        return " ".join(self._notes)

    def prepare(self, golden: Mapping[str, Array]) -> None:
        """Write down what the candidates are asked."""
        self._put("golden", [golden])
        self._put("timed", [golden])
        if self._rows is None:
            self._notes.append(
                "There is no held-out data: only candidates in FP32 are allowed. "
                f"Leave {' or '.join(holdout.FILES)} in SM_MODEL_DIR, or name a source: "
                "deploy: {optimize: {data: <source>}}."
            )
            return
        size = self._batch()
        calibration, measured = self._rows.split()
        if len(measured) < size or len(calibration) < size:
            raise ModelError(
                f"the held-out data has {len(self._rows)} rows, and {2 * size} are the least: "
                "half of them to calibrate with, half to measure the error on"
            )
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
        if self._as_it_is:
            return Row(name, why=f"not tried: {self._as_it_is}")
        if candidate.calibrated and self._rows is None:
            return Row(name, why="there is no held-out data to measure its error on")
        on_line(f"{name}: building")
        begun = time.monotonic()
        job: dict[str, Any] = {
            "candidate": name,
            "registered": str(self._folder),
            "sets": self._sets,
            "patience": _PATIENCE if name == REGISTERED else None,
        }
        try:
            worker = Worker(self._work / name, job, seconds=_BUILD)
        except CandidateError as failed:
            seconds = round(time.monotonic() - begun, 1)
            if name == REGISTERED:
                self._excuse(failed)
                return Row(name, allowed=True, seconds=seconds)
            on_line(f"{name}: {failed}")
            return Row(name, why=str(failed), seconds=seconds)
        workers.callback(worker.close)
        seconds = round(time.monotonic() - begun, 1)
        answers = {
            name: requests.load(worker.folder / f"{name}.npz", self._outputs) for name in self._sets
        }
        if name == REGISTERED:
            self._expect(answers)
            error, why = self._error(self._sets[min(1, len(self._sets) - 1)], answers), ""
            self._doubt(error)
        else:
            error, why = self._judge(answers)
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
        while REGISTERED in self._workers:
            passes = {name: _named(name, worker) for name, worker in self._workers.items()}
            try:
                self._timings = timing.interleaved(passes, rounds=rounds)
                break
            except _FailedError as failed:
                if failed.name == REGISTERED:
                    self._excuse(failed.error)
                    return
                del self._workers[failed.name]
                rows[failed.name] = replace(rows[failed.name], allowed=False, why=str(failed))
        for name, found in self._timings.items():
            base = self._timings[REGISTERED]
            rows[name] = replace(
                rows[name],
                median_ms=found.median * 1000,
                p95_ms=found.p95 * 1000,
                speedup=timing.speedup(found, base),
            )

    def pick(self, rows: dict[str, Row]) -> str:
        """The candidate that is to be served; the others are told why not."""
        if REGISTERED not in self._timings:
            for name in self._workers:
                rows[name] = replace(rows[name], why=f"not timed: {self._as_it_is}")
            return REGISTERED
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

    def _expect(self, answers: dict[str, list[dict[str, Array]]]) -> None:
        """Take the registered model's answers as what is right, if they can be that."""
        self._expected = answers
        if "measured" not in answers:
            return
        size, wanted = self._batch(), answers["measured"]
        asked = requests.load(self._work / "measured.npz", self._signature.by_name)
        if len(wanted) < len(asked):
            self._notes.append(f"Its answers take long: only {len(wanted) * size} rows are asked.")
            self._put("measured", asked[: len(wanted)])
            if self._labels is not None:
                self._labels = self._labels[: len(wanted) * size]
        arrays = [array for answer in wanted for array in answer.values()]
        if "beside" in answers and any(len(array) != size for array in arrays):
            self._sets.remove("beside")  # how much a row gets, the model decides
        if not is_finite(wanted):
            self._leave("its own answers on the held-out data are not all finite numbers")
        elif "beside" in self._sets and (name := self._changed(answers)):
            self._leave(f"its own {name} for a row changes with the rows beside it")
        self._look_at_labels(wanted)

    def _look_at_labels(self, answers: Sequence[Mapping[str, Array]]) -> None:
        """Measure by the labels only if the model itself knows something of them."""
        if self._labels is None:
            return
        try:
            name = classes_of(self._signature, answers, self._labels)
        except UnsuitedError as error:
            if self._metric == "accuracy":
                raise _unsuited(error) from error
            self._notes.append(f"`label` is left out: {error}.")
            self._labels = None
            return
        share = right(name, answers, self._labels)
        _, counts = np.unique(self._labels, return_counts=True)
        if share <= max(counts) / len(self._labels):
            self._notes.append(
                f"`label` is left out: the registered model is right for {share:.0%} of the rows, "
                "no more than if it always said the same. Are they counted from 0, as its classes?"
            )
            self._labels = None
            self._metric = None if self._metric == "accuracy" else self._metric

    def _leave(self, why: str) -> None:
        """Nothing can be held against the registered model: it is served as it is."""
        self._as_it_is = why
        self._notes.append(f"The model is served as it was registered: {why}.")

    def _excuse(self, failed: CandidateError) -> None:
        """:raises ModelError: the registered model fails otherwise than by taking long."""
        if not isinstance(failed, LateError):
            raise ModelError(f"the registered model cannot be served: {failed}") from failed
        self._leave(f"it {failed}")

    def _judge(self, answers: Mapping[str, list[dict[str, Array]]]) -> tuple[Error, str]:
        """The error of a candidate's answers, and why it is too great, if it is."""
        golden = self._error("golden", answers)
        measured = self._error("measured", answers) if "measured" in answers else golden
        limit = self._budget.error if "measured" in answers else _ROUNDING
        if not measured.value <= limit:
            return measured, f"its error is above {limit:g}"
        # One that was made of the signature may be unlike anything that the model is for.
        own = "measured" not in answers or (self._folder / FILE).exists()
        if own and not golden.value <= limit:
            return measured, "it answers the golden request otherwise"
        if "beside" in self._sets and (name := self._changed(answers)):
            return measured, f"its {name} for a row changes with the rows beside it"
        return measured, ""

    def _doubt(self, error: Error) -> None:
        """Say so if one changed answer among the rows would already be above the budget."""
        rows = len(self._expected.get("measured", ())) * self._batch()
        if error.metric in ("accuracy", "top1") and 0 < rows * self._budget.error < 1:
            self._notes.append(
                f"The error is measured on {rows} rows only: too few to tell one of "
                f"{self._budget.error:g}. Leave at least {2 / self._budget.error:.0f} rows."
            )

    def _error(self, name: str, answers: Mapping[str, list[dict[str, Array]]]) -> Error:
        metric, labels = self._metric, self._labels
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
        except UnsuitedError as error:
            raise _unsuited(error) from error

    def _changed(self, answers: Mapping[str, list[dict[str, Array]]]) -> str:
        """The first output that is not the same for a row alone and beside others."""
        [together] = answers["beside"]
        for name, values in together.items():
            alone = np.concatenate([one[name] for one in answers["measured"][: len(values)]])
            some = values[: len(alone)]
            same = (
                np.isclose(some, alone, RELATIVE, ABSOLUTE)
                if values.dtype.kind == "f"
                else some == alone
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
        fixed = {t.dims[0] for t in self._signature.inputs if t.dims and isinstance(t.dims[0], int)}
        return max(fixed, default=1)


class _FailedError(Exception):
    def __init__(self, name: str, error: CandidateError) -> None:
        super().__init__(str(error))
        self.name, self.error = name, error


def _unsuited(error: UnsuitedError) -> ModelError:
    return ModelError(
        f"deploy.optimize: {error}",
        hint="Leave `metric` out, and it is chosen by what the outputs are.",
    )


def _named(name: str, worker: Worker) -> timing.Pass:
    def one() -> list[float]:
        try:
            return worker.timed()
        except CandidateError as error:
            raise _FailedError(name, error) from error

    return one


def _spread(count: int, most: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(0, count - 1, most)})
