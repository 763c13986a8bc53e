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

_SMALL = 0.1
"""Of the mean length of the rows: shorter ones are measured by it, as next to 0 every error is
large."""


@dataclass(frozen=True)
class Error:
    """An error and what it is one of; for each metric 0 is no error, and less is better."""

    value: float
    metric: Metric


class UnsuitedError(ValueError):
    """The outputs, the metric and the labels do not go together; the message says why."""


Answers: TypeAlias = Sequence[Mapping[str, Array]]
"""The outputs of one request after the other, by name."""

Rows: TypeAlias = Sequence[Array]
"""What an output says to one row after the other."""


def measure(
    signature: Signature,
    expected: Answers,
    answers: Answers,
    *,
    metric: Metric | None = None,
    labels: Array | None = None,
) -> Error:
    """The error of some answers: that of the worst output.

    ``accuracy``: by how much the share of right answers is less; measures the output that says the
    class, and those that say the same in another way. ``top1``: the share of classes that are
    another. ``cosine``: the mean cosine distance. ``relative``: the mean over the rows of
    ``|answer - expected| / |expected|``, with Euclidean norms. An answer of another shape, or one
    that is not finite, is infinitely wrong; where the model itself gives one request more than
    another, as entities of a text, another number of them is wrong for this request.

    :param expected: the registered model's answers.
    :param metric: None: ``accuracy`` with labels, else what each output looks like.
    :param labels: the right class of each row.
    :raises UnsuitedError: no output suits the metric.
    """
    errors = []
    told: set[str] = set()
    if metric == "accuracy" or (metric is None and labels is not None):
        name = classes_of(signature, expected, labels)
        told = _forms(name, signature, expected)
        lost = right(name, expected, labels) - right(name, answers, labels)
        errors = [Error(max(0.0, lost), "accuracy")]
    for tensor in signature.outputs:
        wanted = [answer[tensor.name] for answer in expected]
        found = [answer[tensor.name] for answer in answers]
        own = metric if metric and metric != "accuracy" else kind(tensor, wanted[0])
        if wanted[0].dtype.kind != "f":
            own = "top1"
        elif own == "top1" and (wanted[0].ndim < 2 or wanted[0].shape[-1] < 2):
            raise UnsuitedError(
                f"`metric: top1` takes classes, and {tensor.name} has one number a row"
            )
        if _odd(wanted, found):
            return Error(math.inf, own)
        if tensor.name not in told:
            errors.append(Error(_ERRORS[own](*_paired(wanted, found)), own))
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
    """The output that has a class for each row, as the labels have; of several, the one that is
    right most often.

    :raises UnsuitedError: there is none, or there are no labels.
    """
    if labels is None:
        raise UnsuitedError("the held-out data has no `label`, which `metric: accuracy` takes")
    numbers = labels.dtype.kind in "iub"
    shares = {
        name: right(name, expected, labels)
        for name, found in _classes(signature, expected).items()
        if found.shape == labels.shape and (found.dtype.kind in "iub") == numbers
    }
    if not shares:
        raise UnsuitedError("no output of the model is a class as those in `label` are")
    return max(shares, key=shares.__getitem__)


def right(name: str, answers: Answers, labels: Array | None) -> float:
    """The share of the labels that an output gives."""
    found = _class([answer[name] for answer in answers])
    if found is None or labels is None or found.shape != labels.shape:
        return 0.0
    return float(np.mean(found == labels))


def is_finite(answers: Answers) -> bool:
    """Are all numbers in some answers such?"""
    return all(
        np.isfinite(array).all()
        for answer in answers
        for array in answer.values()
        if array.dtype.kind == "f"
    )


def _classes(signature: Signature, answers: Answers) -> dict[str, Array]:
    """Of each output that says one, the class of each row."""
    found = {
        tensor.name: _class([answer[tensor.name] for answer in answers])
        for tensor in signature.outputs
    }
    return {name: classes for name, classes in found.items() if classes is not None}


def _class(answers: Sequence[Array]) -> Array | None:
    """The class of each row: what is said, or the place of the greatest of several numbers."""
    first = answers[0]
    if first.ndim == 1 and first.dtype.kind in "iubOU":
        return np.concatenate(answers)
    if first.ndim == 2 and first.dtype.kind == "f" and first.shape[1] > 1:
        return np.asarray(np.concatenate(answers).argmax(1))
    return None


def _forms(name: str, signature: Signature, expected: Answers) -> set[str]:
    """The outputs that say the same class in any way: by number, name, or share of each."""
    classes = _classes(signature, expected)
    own = classes[name].tolist()

    def same(other: Array) -> bool:
        pairs = set(zip(own, other.tolist(), strict=True))
        return len(pairs) == len(set(own)) == len(set(other.tolist()))

    return {other for other, found in classes.items() if len(found) == len(own) and same(found)}


def _odd(wanted: Sequence[Array], found: Sequence[Array]) -> bool:
    """Is an answer of a shape that it cannot have, or not finite?"""
    return any(
        (a.shape != b.shape and not _is_ragged(wanted))
        or (b.dtype.kind == "f" and not np.isfinite(b).all())
        for a, b in zip(wanted, found, strict=True)
    )


def _is_ragged(answers: Sequence[Array]) -> bool:
    """Does the model decide how many rows a request gets?"""
    return len({len(np.atleast_1d(answer)) for answer in answers}) > 1


def _paired(wanted: Sequence[Array], found: Sequence[Array]) -> tuple[Rows, Rows]:
    """The rows of both; where the model decides how many, what each request gets is one."""
    if _is_ragged(wanted):
        return wanted, found
    return _rows(wanted), _rows(found)


def _rows(answers: Sequence[Array]) -> Rows:
    return [np.asarray(row) for answer in answers for row in np.atleast_1d(answer)]


def _top1(expected: Rows, answers: Rows) -> float:
    return float(np.mean([_another(a, b) for a, b in zip(expected, answers, strict=True)]))


def _another(expected: Array, answer: Array) -> float:
    """The share of the classes in a row that are another."""
    if expected.shape != answer.shape:
        return 1.0
    if expected.dtype.kind == "f":
        return float(np.mean(expected.argmax(-1) != answer.argmax(-1)))
    return float(np.any(expected != answer))


def _cosine(expected: Rows, answers: Rows) -> float:
    return float(np.mean([_distance(a, b) for a, b in zip(expected, answers, strict=True)]))


def _distance(expected: Array, answer: Array) -> float:
    a, b = expected.ravel().astype(np.float64), answer.ravel().astype(np.float64)
    if a.shape != b.shape:
        return 1.0
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return max(0.0, 1 - float(a @ b) / lengths) if lengths else float(np.any(a != b))


def _relative(expected: Rows, answers: Rows) -> float:
    lengths = [float(np.linalg.norm(row.ravel().astype(np.float64))) for row in expected]
    least = max(_SMALL * float(np.mean(lengths)), 1e-30)
    return float(
        np.mean(
            [
                float(np.linalg.norm((b.astype(np.float64) - a).ravel())) / max(length, least)
                if a.shape == b.shape
                else 1.0
                for a, b, length in zip(expected, answers, lengths, strict=True)
            ]
        )
    )


_ERRORS = {"top1": _top1, "cosine": _cosine, "relative": _relative}
