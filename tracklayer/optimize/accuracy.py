"""How far a candidate's answers are from those of the registered model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from tracklayer.serving.model import Array, Signature, Tensor

Metric: TypeAlias = Literal["accuracy", "top1", "cosine", "relative"]

_UNIT = 1e-3
"""How far the sum or the length of a row may be from 1, for it to be a probability or a vector of
length one."""


@dataclass(frozen=True)
class Error:
    """An error and what it is one of; for each metric 0 is no error, and less is better."""

    value: float
    metric: Metric


Answers: TypeAlias = Sequence[Mapping[str, Array]]
"""The outputs of one request after the other, by name."""


def measure(
    signature: Signature,
    expected: Answers,
    answers: Answers,
    *,
    metric: Metric | None = None,
    labels: Array | None = None,
) -> Error:
    """The error of some answers: that of the worst output, but for ``accuracy``.

    ``accuracy``: by how much the share of right answers is less. ``top1``: the share of rows whose
    class is another. ``cosine``: the mean cosine distance. ``relative``: the mean over the rows of
    ``|answer - expected| / |expected|``, with Euclidean norms. An answer of another shape, or one
    that is not finite, is infinitely wrong.

    :param expected: the registered model's answers.
    :param metric: None: ``accuracy`` with labels, else what each output looks like.
    :param labels: the right class of each row.
    :raises ValueError: no output suits the metric.
    """
    by_labels = metric == "accuracy" or (metric is None and labels is not None)
    classes = classes_of(signature, expected, labels) if by_labels else None
    errors = []
    for tensor in signature.outputs:
        wanted = [answer[tensor.name] for answer in expected]
        found = [answer[tensor.name] for answer in answers]
        own = metric if metric and metric != "accuracy" else kind(tensor, wanted[0])
        if wanted[0].dtype.kind != "f":
            own = "top1"
        if _odd(wanted, found):
            return Error(math.inf, own)
        pairs = zip(*map(_rows, (wanted, found)), strict=True)
        errors.append(Error(float(np.mean([_ERRORS[own](a, b) for a, b in pairs])), own))
    if classes is not None:
        lost = _right(classes, expected, labels) - _right(classes, answers, labels)
        return Error(max(0.0, lost), "accuracy")
    return max(errors, key=lambda error: error.value)


def kind(tensor: Tensor, expected: Array) -> Metric:
    """What an output's error is to be measured by: what its answers look like decides."""
    if expected.dtype.kind != "f":
        return "top1"
    if expected.ndim != 2 or expected.shape[1] < 2:
        return "relative"
    if "logit" in tensor.name or "prob" in tensor.name:
        return "top1"
    if (expected >= 0).all() and np.allclose(expected.sum(1), 1, atol=_UNIT):
        return "top1"
    if "embedding" in tensor.name or np.allclose(np.linalg.norm(expected, axis=1), 1, atol=_UNIT):
        return "cosine"
    return "relative"


def classes_of(signature: Signature, expected: Answers, labels: Array | None) -> str:
    """The output that has a class for each row, as the labels have.

    :raises ValueError: there is none, or there are no labels.
    """
    if labels is None:
        raise ValueError("the held-out data has no `label`, which `metric: accuracy` takes")
    numbers = labels.dtype.kind in "iub"
    for tensor in signature.outputs:
        answer = expected[0][tensor.name]
        if answer.ndim == 1 and answer.dtype.kind in ("iub" if numbers else "OU"):
            return tensor.name
        if answer.ndim == 2 and answer.dtype.kind == "f" and answer.shape[1] > 1 and numbers:
            return tensor.name
    raise ValueError("no output of the model is a class as those in `label` are")


def _right(name: str, answers: Answers, labels: Array | None) -> float:
    found = np.concatenate([answer[name] for answer in answers])
    return float(np.mean((found if found.ndim == 1 else found.argmax(1)) == labels))


def _odd(wanted: Sequence[Array], found: Sequence[Array]) -> bool:
    """Is an answer of another shape, or not finite?"""
    return any(
        a.shape != b.shape or (b.dtype.kind == "f" and not np.isfinite(b).all())
        for a, b in zip(wanted, found, strict=True)
    )


def _rows(answers: Sequence[Array]) -> list[Array]:
    """The rows of all answers, each of one axis; what has no axis is one row."""
    return [row for answer in answers for row in answer.reshape(len(np.atleast_1d(answer)), -1)]


def _top1(expected: Array, answer: Array) -> float:
    if expected.dtype.kind == "f":
        return float(expected.argmax() != answer.argmax())
    return float((expected != answer).any())


def _cosine(expected: Array, answer: Array) -> float:
    lengths = float(np.linalg.norm(expected) * np.linalg.norm(answer))
    return max(0.0, float(1 - expected.astype(np.float64) @ answer / max(lengths, 1e-30)))


def _relative(expected: Array, answer: Array) -> float:
    difference = np.linalg.norm(answer.astype(np.float64) - expected)
    return float(difference / max(float(np.linalg.norm(expected)), 1e-30))


_ERRORS = {"top1": _top1, "cosine": _cosine, "relative": _relative}
