"""What the optimise step makes of networks for images.

Every number is the time of one request on one thread. The choice is timed anew, beside every
candidate that could be built, so that the step cannot prove itself right.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.measure import OURS, Measure, Options, Row, interleaved, say
from bench.networks import IMAGES, images
from tracklayer.errors import ModelError
from tracklayer.optimize import Budget, Choice, choose, text
from tracklayer.optimize import Row as Candidate
from tracklayer.optimize.candidates import REGISTERED
from tracklayer.optimize.worker import MODEL
from tracklayer.serving.formats import load
from tracklayer.serving.model import Array, Model

_BEST = 1.05
_ANSWERS = 5
_BUDGET = 0.02
"""Of the cosine distance: random weights have no classes to keep."""


def run(options: Options) -> list[Row]:
    """The networks, one after the other."""
    pairs = options.pairs or (3 if options.quick else 15)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-optimise-") as place:
        names = ["MobileNetV2"] if options.quick else list(IMAGES)
        for name in names:
            rows += _images(name, Path(place), pairs, quick=options.quick)
    return rows


def _images(name: str, place: Path, pairs: int, *, quick: bool) -> list[Row]:
    folder, work = place / name, place / f"{name}-work"
    IMAGES[name](folder)
    images(folder, 24 if quick else 80)
    choice = _choose(folder, work)
    request = {"pixels": np.load(folder / "holdout.npz")["pixels"][:1]}
    measures = {OURS: _timed(load(choice.folder or folder), request)}
    for candidate in choice.rows:
        if model := _built(work / candidate.name / MODEL):
            measures[candidate.name] = _timed(model, request)
    samples, missing = interleaved(pairs, measures, warm=1)
    return _rows(f"{name}, chosen: {choice.chosen.name}", choice, samples, missing)


def _rows(
    what: str,
    choice: Choice,
    samples: Mapping[str, Sequence[float]],
    missing: Mapping[str, str],
) -> list[Row]:
    """The choice beside each candidate: never slower than FP32, nearly the best allowed one."""
    allowed = [row.name for row in choice.rows if row.allowed and samples.get(row.name)]
    best = min(allowed, key=lambda name: statistics.median(samples[name]))
    # The registered model beside itself is as fast as itself, within the noise.
    limits = {best: _BEST}
    limits[REGISTERED] = _BEST if choice.chosen.name == REGISTERED else 1.0

    def said(candidate: Candidate) -> str:
        if candidate.name == best:
            return f"{best}, the best allowed"
        if candidate.name in samples and not candidate.allowed:
            return f"{candidate.name} (not allowed)"
        return candidate.name

    return [
        Row(
            what=what,
            unit="ms",
            ours=samples[OURS],
            name=said(candidate),
            theirs=samples.get(candidate.name, []),
            at_most=limits.get(candidate.name),
            missing=missing.get(candidate.name, "")
            or ("" if candidate.name in samples else candidate.why),
        )
        for candidate in choice.rows
    ]


def _choose(folder: Path, work: Path) -> Choice:
    work.mkdir()
    found = choose(folder, work, budget=Budget(_BUDGET, "cosine"), on_line=say)
    for line in text(found.rows):
        say(f"  {line}")
    return found


def _built(folder: Path) -> Model | None:
    """A candidate's model, if it got that far."""
    if not folder.exists():
        return None
    try:
        return load(folder)
    except ModelError:
        return None


def _timed(model: Model, request: Mapping[str, Array]) -> Measure:
    names = model.signature.output_names

    return _median(lambda: model.run(request, names, model.call()))


def _median(answer: Callable[[], object]) -> Measure:
    """Milliseconds of one of several answers: the first ones find the caches full of others."""

    def once() -> float:
        taken = []
        for _ in range(_ANSWERS):
            start = time.perf_counter()
            answer()
            taken.append((time.perf_counter() - start) * 1000)
        return statistics.median(taken)

    return once
