"""Requests and answers as files: lists of tensors by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tracklayer.serving.model import DATATYPES, Array, Tensor


def save(file: Path, entries: Sequence[Mapping[str, Array]]) -> None:
    """Write requests or answers into an .npz file; texts as such, which takes no pickle."""
    arrays = {
        f"{number}:{name}": array.astype(str) if array.dtype.kind == "O" else array
        for number, entry in enumerate(entries)
        for name, array in entry.items()
    }
    with file.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load(file: Path, tensors: Mapping[str, Tensor] | None = None) -> list[dict[str, Array]]:
    """What :func:`save` wrote.

    :param tensors: by name, if there may be texts, which NumPy would give as such.
    """
    found: dict[int, dict[str, Array]] = {}
    with np.load(file, allow_pickle=False) as arrays:
        for key, array in arrays.items():
            number, _, name = key.partition(":")
            dtype = DATATYPES[tensors[name].datatype] if tensors else array.dtype
            found.setdefault(int(number), {})[name] = array.astype(dtype, copy=False)
    return [found[number] for number in sorted(found)]
