"""Held-out data, from files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tracklayer.errors import ModelError
from tracklayer.optimize.holdout import CALIBRATION, MEASURED, Rows, find, read
from tracklayer.serving.model import Signature, Tensor

NUMBERS = Signature((Tensor("x", "FP32", ("batch", 3)),), ())
TEXTS = Signature((Tensor("text", "BYTES", ("batch",)),), ())


def test_arrays_by_name_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "holdout.npz"
    np.savez(file, x=np.arange(12).reshape(4, 3), label=[0, 1, 0, 1])
    rows = read(file, NUMBERS)
    assert len(rows) == 4
    assert rows.arrays["x"].dtype == np.float32
    assert rows.labels is not None
    assert rows.labels.tolist() == [0, 1, 0, 1]
    first = next(rows.requests())
    assert first["x"].tolist() == [[0, 1, 2]]
    assert [len(request["x"]) for request in rows.requests(3)] == [3]


def test_a_line_of_json_a_row(tmp_path: Path) -> None:
    file = tmp_path / "holdout.jsonl"
    rows = [{"text": "a b", "label": "ham"}, {"text": "c", "label": "spam"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(file, TEXTS)
    assert found.arrays["text"].tolist() == ["a b", "c"]
    assert found.arrays["text"].dtype == object
    assert found.labels is not None
    assert found.labels.tolist() == ["ham", "spam"]


def test_texts_in_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "holdout.npz", text=np.array(["a", "bc"]))
    assert read(tmp_path / "holdout.npz", TEXTS).arrays["text"].tolist() == ["a", "bc"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros((4, 3))}, "has y, and the model takes x"),
        ({"x": np.zeros((4, 2))}, r"shape \[4, 2\], and the model takes \[-1, 3\]"),
        ({"x": np.zeros(3)}, "shape"),
        ({"x": np.array([["a"] * 3])}, "is no FP32"),
        ({"x": np.zeros((0, 3))}, "rows"),
        ({"x": np.zeros((4, 3)), "label": np.zeros(3)}, r"columns have \[3, 4\] rows"),
    ],
)
def test_what_does_not_suit_the_model(tmp_path: Path, arrays: dict, said: str) -> None:
    np.savez(tmp_path / "holdout.npz", **arrays)
    with pytest.raises(ModelError, match=said):
        read(tmp_path / "holdout.npz", NUMBERS)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "holdout.npz", x=np.array([Evil()], dtype=object))
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "holdout.npz", NUMBERS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive"])
def test_a_damaged_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "holdout.npz").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "holdout.npz", NUMBERS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", ":1: no JSON"),
        ("[1]", ":1: must be an object"),
        ('{"text": "a"}\n{"txt": "b"}', ":2: must be an object with the keys of the first"),
        ("", "has nothing, and the model takes text"),
    ],
)
def test_damaged_lines(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "holdout.jsonl").write_text(text)
    with pytest.raises(ModelError, match=said):
        read(tmp_path / "holdout.jsonl", TEXTS)


def test_no_row_calibrates_and_measures() -> None:
    calibration, measured = Rows({"x": np.arange(5000)}, np.arange(5000)).split()
    assert (len(calibration), len(measured)) == (CALIBRATION, MEASURED)
    assert not set(calibration.arrays["x"]) & set(measured.arrays["x"])
    assert measured.arrays["x"].max() > 4900
    assert measured.labels is not None
    assert (measured.labels == measured.arrays["x"]).all()


def test_it_is_found_wherever_it_lies(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "holdout.npz").touch()
    assert find(tmp_path) == tmp_path / "a" / "holdout.npz"
    (tmp_path / "holdout.jsonl").touch()
    with pytest.raises(ModelError, match=r"more than one.*a/holdout.npz, holdout.jsonl"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("datatype", "values", "row"),
    [
        ("INT64", [[0, 0], [0.5, 0]], 1),
        ("UINT8", [[0, 300], [0, 0]], 0),
        ("BOOL", [[0, 1], [0, 2]], 1),
        ("FP32", [[0, 1], [np.nan, 2]], 1),
        ("FP16", [[0, 1e30], [0, 2]], 0),
    ],
)
def test_no_value_is_changed(tmp_path: Path, datatype: str, values: list, row: int) -> None:
    np.savez(tmp_path / "holdout.npz", x=np.array(values))
    signature = Signature((Tensor("x", datatype, ("batch", 2)),), ())
    with pytest.raises(ModelError, match=f"x is no {datatype}: row {row} has a value that it"):
        read(tmp_path / "holdout.npz", signature)


def test_a_row_has_one_label(tmp_path: Path) -> None:
    file = tmp_path / "holdout.npz"
    np.savez(file, x=np.zeros((3, 3)), label=np.array([[1.0], [0.0], [2.0]]))
    labels = read(file, NUMBERS).labels
    assert labels is not None
    assert (labels.tolist(), labels.dtype.kind) == ([1, 0, 2], "i")
    np.savez(file, x=np.zeros((3, 3)), label=np.eye(3))
    with pytest.raises(
        ModelError, match=r"label has the shape \[3, 3\], and each row has one"
    ) as said:
        read(file, NUMBERS)
    assert "argmax" in str(said.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("holdout.npz", "holdout.jsonl"):
        with pytest.raises(ModelError, match=f"{name} cannot be read"):
            read(tmp_path / name, NUMBERS)
