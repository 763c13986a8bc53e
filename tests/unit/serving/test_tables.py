from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracklayer.serving import invocations
from tracklayer.serving.model import RequestError, Signature, Tensor
from tracklayer.serving.tables import array_of, feeds_of, only, read_csv, rows_of, write_csv


@pytest.fixture
def tokens() -> Signature:
    """Numbers of tokens and a mask, or the text itself."""
    return Signature(
        (Tensor("ids", "INT64", ("batch", "length")), Tensor("mask", "INT64", ("batch", "length"))),
        (Tensor("y", "FP32", ("batch",)),),
        Tensor("text", "BYTES", ("batch",)),
    )


def test_what_may_be_given_in_place_of_the_inputs(tokens: Signature) -> None:
    assert invocations.feeds_of(tokens, {"text": ["a"]})["text"].tolist() == ["a"]
    assert invocations.feeds_of(tokens, ["a", "b"])["text"].tolist() == ["a", "b"]
    ids, mask = [[1, 2]], [[1, 1]]
    assert invocations.feeds_of(tokens, {"ids": ids, "mask": mask}).keys() == {"ids", "mask"}
    assert read_csv(tokens, b"text\na b\n")["text"].tolist() == ["a b"]
    assert feeds_of(tokens, ["mask", "ids"], [[mask[0], ids[0]]])["ids"].tolist() == ids


def test_text_is_for_the_input_that_takes_text() -> None:
    image = Tensor("image", "BYTES", ("batch",))
    signature = Signature((Tensor("pixels", "FP32", ("batch", 2)),), (), image)
    assert only(signature, ["aGk="], "rows") is image
    assert only(signature, [[0.0, 1.0]], "rows").name == "pixels"
    assert only(signature, [], "rows").name == "pixels"


@pytest.mark.parametrize("axis", [1, "", "features"])
def test_a_value_a_row_suits_one_column(axis: Any) -> None:
    assert array_of(Tensor("x", "INT64", ("", axis)), [1, 2], "x").tolist() == [[1], [2]]


def test_a_value_a_row_does_not_suit_two_columns() -> None:
    with pytest.raises(RequestError, match=r"shape \[2\] does not fit \[-1, 2\]"):
        array_of(Tensor("x", "INT64", ("", 2)), [1, 2], "x")


def test_an_input_without_axes_takes_one_value() -> None:
    scalar = Tensor("x", "INT64", ())
    assert array_of(scalar, 3, "x").tolist() == 3
    for data, message in (
        ([3], r"x: shape \[1\] does not fit \[\]"),
        (None, "x: value 0 of data is of type null, which INT64 does not take"),
        (True, "type boolean"),
        (3.0, "type number"),
        (1 << 63, "out of range"),
    ):
        with pytest.raises(RequestError, match=message):
            array_of(scalar, data, "x")
    with pytest.raises(RequestError, match=r"x: shape \[\] does not fit \[-1\]"):
        array_of(Tensor("x", "INT64", ("",)), 3, "x")


def test_rows_of_outputs() -> None:
    one = Signature((), (Tensor("a", "FP32", ("n", 2)),))
    two = Signature((), (Tensor("a", "FP32", ("n", 2)), Tensor("b", "BYTES", ("n",))))
    numbers = np.array([[1, 2], [3, 4]], dtype=np.float32)
    texts = np.array(["x", "y,z"], dtype=object)
    assert rows_of(one, [numbers]) == [[1, 2], [3, 4]]
    assert rows_of(two, [numbers, texts])[1] == {"a": [3, 4], "b": "y,z"}
    assert write_csv(two, [numbers, texts]) == b'1.0,2.0,x\n3.0,4.0,"y,z"\n'
    with pytest.raises(RequestError, match="no rows"):
        rows_of(two, [numbers, texts[:1]])
    with pytest.raises(RequestError, match="output 'a' holds NaN"):
        write_csv(one, [numbers * np.float32("nan")])
