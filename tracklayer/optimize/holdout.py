"""Held-out data: rows that the model was not trained on, to calibrate with and to measure errors.

``holdout.npz`` has an array for each input of the model, by its name, and, if wanted, ``label``,
the right answers; the first axis of all of them is the row. ``holdout.jsonl`` has the same as one
object a line: ``{"text": "Win a prize now", "label": "spam"}``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.model import DATATYPES, Array, Signature, Tensor

FILES = ("holdout.npz", "holdout.jsonl")
LABEL = "label"

CALIBRATION = 300
"""Rows that a calibration takes at most: NNCF's own default."""
MEASURED = 500
"""Rows that an error is measured on at most."""

_ADVICE = (
    "numpy.savez('holdout.npz', <input>=rows, label=answers), "
    "or a line of JSON a row in holdout.jsonl."
)


@dataclass(frozen=True)
class Rows:
    """Rows of a model's inputs, ``arrays[name][row]``, and the right answers to them."""

    arrays: dict[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, rows: Array) -> Rows:
        """Some of them."""
        labels = None if self.labels is None else self.labels[rows]
        return Rows({name: array[rows] for name, array in self.arrays.items()}, labels)

    def requests(self, size: int = 1) -> Iterator[dict[str, Array]]:
        """The rows as the inputs of requests with ``size`` rows each; what is left over is not."""
        for start in range(0, len(self) - size + 1, size):
            yield {name: array[start : start + size] for name, array in self.arrays.items()}

    def split(self) -> tuple[Rows, Rows]:
        """Every other row to calibrate with, the others to measure the error on."""
        rows = np.arange(len(self))
        return self.take(_spread(rows[::2], CALIBRATION)), self.take(_spread(rows[1::2], MEASURED))


def find(folder: Path) -> Path | None:
    """The held-out data in a folder, if there is one.

    :raises ModelError: there are several.
    """
    found = sorted(file for name in FILES for file in folder.rglob(name))
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(folder)) for file in found)
        raise ModelError(f"there is more than one file of held-out data: {names}")
    return found[0] if found else None


def read(file: Path, signature: Signature) -> Rows:
    """The rows of a file, as the model takes them.

    :raises ModelError: the file is damaged, or its columns are not the model's inputs.
    """
    columns = _jsonl(file) if file.suffix == ".jsonl" else _npz(file)
    wanted = {tensor.name: tensor for tensor in signature.inputs}
    labels = columns.pop(LABEL, None) if LABEL not in wanted else None
    if columns.keys() != wanted.keys():
        raise ModelError(
            f"{file.name} has {', '.join(columns) or 'nothing'}, "
            f"and the model takes {', '.join(wanted)}",
            hint=_ADVICE,
        )
    arrays = {}
    for name, tensor in wanted.items():
        array = _cast(columns[name], tensor, file.name)
        fits = array.ndim == len(tensor.dims) and all(
            size == dim
            for size, dim in zip(array.shape[1:], tensor.dims[1:], strict=True)
            if isinstance(dim, int)
        )
        if not fits or not tensor.dims:
            raise ModelError(
                f"{file.name}: {name} has the shape {list(array.shape)}, "
                f"and the model takes {tensor.shape}",
                hint="The first axis is the row."
                if tensor.dims
                else "An input without axes has no rows: such a model cannot be measured. "
                "Leave the file out, and candidates in FP32 are tried.",
            )
        arrays[name] = array
    if labels is not None:
        labels = _one_each(labels, file.name)
    counts = {len(array) for array in (*arrays.values(), *([] if labels is None else [labels]))}
    if len(counts) != 1 or counts == {0}:
        raise ModelError(f"{file.name}: its columns have {sorted(counts)} rows", hint=_ADVICE)
    return Rows(arrays, labels)


def _cast(array: Array, tensor: Tensor, file: str) -> Array:
    """Values as an input takes them: floats may be rounded, nothing else is changed.

    :raises ModelError: they are of another kind, or would not stay what they are.
    """
    dtype = DATATYPES[tensor.datatype]
    what = f"{file}: {tensor.name} is no {tensor.datatype}"
    if (array.dtype.kind in "OU") != (dtype.kind == "O"):
        raise ModelError(f"{what}: it has the type {array.dtype}", hint=_ADVICE)
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            found = array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what}: {error}", hint=_ADVICE) from error
    wrong = ~np.isfinite(found) if dtype.kind == "f" else np.asarray(found != array)
    if wrong.any():
        row = int(np.argwhere(wrong.reshape(len(wrong), -1).any(1))[0, 0]) if wrong.ndim else 0
        raise ModelError(
            f"{what}: row {row} has a value that it cannot be", hint="Nothing is cast or guessed."
        )
    return found


def _one_each(labels: Array, file: str) -> Array:
    """The labels, one for each row.

    :raises ModelError: there are several for a row.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ModelError(
            f"{file}: {LABEL} has the shape {list(labels.shape)}, and each row has one answer",
            hint="Give the class itself, not a column for each: labels.argmax(1).",
        )
    if labels.dtype.kind == "f" and np.array_equal(labels, labels.astype(np.int64)):
        labels = labels.astype(np.int64)  # classes that were kept as floats
    return labels


def _npz(file: Path) -> dict[str, Array]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{file.name} cannot be read: {error}", hint=_ADVICE) from error


def _jsonl(file: Path) -> dict[str, Array]:
    columns: dict[str, list[object]] = {}
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ModelError(f"{file.name} cannot be read: {error}", hint=_ADVICE) from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{file.name}:{number}: no JSON: {error}", hint=_ADVICE) from error
        if type(row) is not dict or (columns and row.keys() != columns.keys()):
            raise ModelError(
                f"{file.name}:{number}: must be an object with the keys of the first line",
                hint=_ADVICE,
            )
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    try:
        return {
            name: np.array(values, dtype=object if isinstance(values[0], str) else None)
            for name, values in columns.items()
        }
    except ValueError as error:
        raise ModelError(
            f"{file.name}: the rows differ in shape",
            hint="Lists have the same length in all rows: pad them as the training did.",
        ) from error


def _spread(rows: Array, most: int) -> Array:
    """At most so many of them, from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return np.asarray(rows[places])
