"""What the optimise step makes of networks, and what our way to run one costs.

Every number is the time of one request on one thread. The choice is timed anew, beside every
candidate that was allowed, so that the step cannot prove itself right.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import OURS, Measure, Options, Row, interleaved, say
from bench.networks import IMAGES, TOKENS, encoder, images
from tracklayer.optimize import Budget, Choice, choose, text
from tracklayer.optimize.candidates import REGISTERED
from tracklayer.optimize.worker import GRAPH, MODEL
from tracklayer.serving.formats import load
from tracklayer.serving.model import Array, Model

_BARE = 1 / 0.95
_ENCODER = 1 / 3.2
_BEST = 1.05
_ANSWERS = 5
_BUDGET = 0.02
"""Of the cosine distance: random weights have no classes to keep."""


def run(options: Options) -> list[Row]:
    """The encoder, then the networks for images."""
    pairs = options.pairs or (3 if options.quick else 15)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-optimise-") as place:
        rows += _encoder(Path(place), pairs, quick=options.quick)
        names = ["MobileNetV2"] if options.quick else list(IMAGES)
        for name in names:
            rows += _images(name, Path(place), pairs, quick=options.quick)
    return rows


def _encoder(place: Path, pairs: int, *, quick: bool) -> list[Row]:
    folder, work = place / "encoder", place / "encoder-work"
    encoder(folder, 24 if quick else 120, layers=2 if quick else 6)
    choice = _choose(folder, work)
    line = (folder / "holdout.jsonl").read_text().splitlines()[0]
    request = {"text": np.array([json.loads(line)["text"]], dtype=object)}
    chosen = load(choice.folder or folder)
    what = f"encoder of DistilBERT's size, {TOKENS} tokens"
    measures = {
        OURS: _timed(load(folder), request),
        "bare onnxruntime session": _bare(work / GRAPH / "model.onnx"),
        "chosen": _timed(chosen, request),
    }
    samples, missing = interleaved(pairs, measures, warm=1)
    bare = samples["bare onnxruntime session"]
    return [
        Row(
            what=f"{what}, as it is",
            unit="ms",
            ours=samples[OURS],
            name="bare onnxruntime session, FP32",
            theirs=bare,
            at_most=_BARE,
            missing=missing.get("bare onnxruntime session", ""),
        ),
        Row(
            what=f"{what}, optimised ({choice.chosen.name})",
            unit="ms",
            ours=samples["chosen"],
            name="bare onnxruntime session, FP32",
            theirs=bare,
            at_most=_ENCODER,
        ),
    ]


def _images(name: str, place: Path, pairs: int, *, quick: bool) -> list[Row]:
    folder, work = place / name, place / f"{name}-work"
    IMAGES[name](folder)
    images(folder, 24 if quick else 80)
    choice = _choose(folder, work)
    request = {"pixels": np.load(folder / "holdout.npz")["pixels"][:1]}
    allowed = [row.name for row in choice.rows if row.allowed]
    measures = {OURS: _timed(load(choice.folder or folder), request)}
    measures |= {other: _timed(load(work / other / MODEL), request) for other in allowed}
    samples, _ = interleaved(pairs, measures, warm=1)
    best = min(allowed, key=lambda other: statistics.median(samples[other]))
    limits = {REGISTERED: 1.0, best: _BEST}
    what = f"{name}, chosen: {choice.chosen.name}"
    return [
        Row(
            what=what,
            unit="ms",
            ours=samples[OURS],
            name=f"{other}, the best allowed" if other == best else other,
            theirs=samples[other],
            at_most=_BEST if other == best else limit,
        )
        for other, limit in limits.items()
    ]


def _choose(folder: Path, work: Path) -> Choice:
    work.mkdir()
    found = choose(folder, work, budget=Budget(_BUDGET, "cosine"), on_line=say)
    for line in text(found.rows):
        say(f"  {line}")
    return found


def _timed(model: Model, request: Mapping[str, Array]) -> Measure:
    names = model.signature.output_names

    return _median(lambda: model.run(request, names, model.call()))


def _bare(graph: Path) -> Measure:
    """onnxruntime alone, on as many tokens."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(0, 30000, (1, TOKENS))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    return _median(lambda: session.run(None, feeds))


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
