"""The error of answers, by each metric."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tracklayer.optimize.accuracy import kind, measure
from tracklayer.serving.model import Signature, Tensor


def signature(name: str = "y", datatype: str = "FP32") -> Signature:
    return Signature((), (Tensor(name, datatype, ("batch", 2)),))


def answers(*rows: Any, dtype: Any = np.float32) -> list[dict[str, Any]]:
    return [{"y": np.array([row], dtype)} for row in rows]


PROBABILITIES = answers([0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7])


def test_what_is_alike_has_no_error() -> None:
    for rows in (PROBABILITIES, answers([3, 4]), answers([0.6, 0.8])):
        assert measure(signature(), rows, rows).value == pytest.approx(0, abs=1e-7)


def test_a_classifier_is_measured_by_the_classes_that_changed() -> None:
    found = answers([0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.3, 0.7])
    error = measure(signature(), PROBABILITIES, found)
    assert (error.value, error.metric) == (0.25, "top1")


def test_with_labels_it_is_the_accuracy_that_was_lost() -> None:
    labels = np.array([0, 1, 0, 0])
    worse = answers([0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.3, 0.7])
    error = measure(signature(), PROBABILITIES, worse, labels=labels)
    assert (error.value, error.metric) == (0.25, "accuracy")
    better = answers([0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3])
    assert measure(signature(), PROBABILITIES, better, labels=labels).value == 0
    assert measure(signature(), PROBABILITIES, better, labels=labels, metric="top1").value == 0.25


def test_texts_and_numbers_are_classes() -> None:
    wanted, found = answers("ham", "spam", dtype=object), answers("ham", "ham", dtype=object)
    one = Signature((), (Tensor("y", "BYTES", ("batch",)),))
    assert measure(one, wanted, found).value == 0.5
    lost = measure(one, wanted, found, labels=np.array(["ham", "spam"], object))
    assert (lost.value, lost.metric) == (0.5, "accuracy")
    numbers = Signature((), (Tensor("y", "INT64", ("batch",)),))
    one_off = measure(numbers, answers(1, 2, dtype=np.int64), answers(1, 3, dtype=np.int64))
    assert (one_off.value, one_off.metric) == (0.5, "top1")


def test_vectors_are_measured_by_their_angle() -> None:
    error = measure(signature(), answers([0.6, 0.8], [0, -1]), answers([0.6, 0.8], [-1, 0]))
    assert error.metric == "cosine"
    assert error.value == pytest.approx(0.5)


def test_other_numbers_are_measured_by_their_relative_error() -> None:
    error = measure(signature(), answers([3, 4], [30, 40]), answers([3, 4], [30, 45]))
    assert error.metric == "relative"
    assert error.value == pytest.approx(0.05)


@pytest.mark.parametrize("answer", [[np.nan, 1], [np.inf, 1]])
def test_what_is_not_finite_is_infinitely_wrong(answer: list[float]) -> None:
    assert measure(signature(), answers([3, 4]), answers(answer)).value == math.inf


def test_another_shape_is_infinitely_wrong() -> None:
    assert measure(signature(), answers([3, 4]), answers([3, 4, 5])).value == math.inf


def test_another_number_of_classes_is_no_right_one() -> None:
    labels = np.array([0, 1, 0, 0])
    both = [{"y": np.concatenate([answer["y"]] * 2)} for answer in PROBABILITIES]
    assert measure(signature(), PROBABILITIES, both, labels=labels).value == math.inf


def test_the_worst_output_counts() -> None:
    both = Signature((), (Tensor("a", "FP32", (1, 2)), Tensor("b", "FP32", (1, 2))))
    array = np.array([[3.0, 4.0]], np.float32)
    error = measure(both, [{"a": array, "b": array}], [{"a": array, "b": array * 2}])
    assert error.value == pytest.approx(1)


def test_labels_that_suit_no_output_are_refused() -> None:
    with pytest.raises(ValueError, match="no output of the model is a class"):
        measure(signature(), answers([3, 4]), answers([3, 4]), labels=np.array(["a"], object))
    with pytest.raises(ValueError, match="has no `label`"):
        measure(signature(), answers([3, 4]), answers([3, 4]), metric="accuracy")


@pytest.mark.parametrize(
    ("name", "values", "metric"),
    [
        ("logits", [[-1.0, 5.0]], "top1"),
        ("probabilities", [[0.1, 0.2]], "top1"),
        ("y", [[0.5, 0.5]], "top1"),
        ("sentence_embedding", [[3.0, 9.0]], "cosine"),
        ("y", [[5.0]], "relative"),
        ("y", [[[1.0, 0.0]]], "relative"),
    ],
)
def test_what_an_output_looks_like(name: str, values: Any, metric: str) -> None:
    assert kind(Tensor(name, "FP32", (1, 2)), np.array(values, np.float32)) == metric


def test_of_several_outputs_the_one_that_knows_the_labels_is_measured_by_them() -> None:
    outputs = (Tensor("length", "INT64", ("n",)), Tensor("digit", "INT64", ("n",)))
    both = Signature((), outputs)
    labels = np.array([0, 1, 2, 3])

    def said(lengths: list[int], digits: list[int]) -> list[dict[str, Any]]:
        pairs = zip(lengths, digits, strict=True)
        return [{"length": np.array([a]), "digit": np.array([b])} for a, b in pairs]

    wanted = said([7, 7, 8, 9], [0, 1, 2, 3])
    assert measure(both, wanted, said([7, 7, 8, 9], [3, 2, 1, 0]), labels=labels).value == 1
    error = measure(both, wanted, said([7, 7, 7, 7], [0, 1, 2, 3]), labels=labels)
    assert (error.value, error.metric) == (0.5, "top1")  # no form of the class: by its own


def test_forms_of_the_class_are_measured_by_the_labels() -> None:
    outputs = (Tensor("name", "BYTES", ("n",)), Tensor("probabilities", "FP32", ("n", 2)))
    both = Signature((), outputs)

    def said(*rows: tuple[str, list[float]]) -> list[dict[str, Any]]:
        return [
            {"name": np.array([name], object), "probabilities": np.array([shares], np.float32)}
            for name, shares in rows
        ]

    wanted = said(("ham", [0.9, 0.1]), ("spam", [0.2, 0.8]), ("ham", [0.6, 0.4]))
    found = said(("ham", [0.9, 0.1]), ("spam", [0.2, 0.8]), ("spam", [0.4, 0.6]))
    labels = np.array(["ham", "spam", "spam"], object)
    error = measure(both, wanted, found, labels=labels)
    assert (error.value, error.metric) == (0.0, "accuracy")


def test_where_the_model_decides_how_many_a_request_is_right_or_wrong() -> None:
    one = Signature((), (Tensor("word", "BYTES", ("entities",)),))

    def said(*texts: list[str]) -> list[dict[str, Any]]:
        return [{"word": np.array(words, object)} for words in texts]

    wanted = said(["Ann"], [], ["Bo", "Rome"], ["Eve"])
    assert measure(one, wanted, wanted).value == 0
    found = said(["Ann"], ["x"], ["Bo", "Rome"], ["Eva"])
    assert measure(one, wanted, found).value == 0.5


def test_nothing_is_divided_by_nothing() -> None:
    for other, error in ([0, 0], 0), ([0, 1], 1):
        found = measure(signature(), answers([0, 0]), answers(other), metric="cosine")
        assert found.value == error
    rows, off = answers([0, 0], [3, 4]), answers([0.05, 0], [3, 4])
    assert measure(signature(), rows, off).value == pytest.approx(0.1)  # beside the mean, 2.5


def test_classes_lie_on_the_last_axis() -> None:
    wanted = [{"y": np.array([[[1, 0], [0, 1]]], np.float32)}]
    found = [{"y": np.array([[[1, 0], [1, 0]]], np.float32)}]
    assert measure(signature(), wanted, found, metric="top1").value == 0.5
    with pytest.raises(ValueError, match="`metric: top1` takes classes, and y has one number"):
        measure(signature(), answers([3]), answers([4]), metric="top1")
