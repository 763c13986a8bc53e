"""Requests and answers as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracklayer.optimize.requests import load, save
from tracklayer.serving.model import Tensor


def test_they_come_back_as_they_were(tmp_path: Path) -> None:
    text = np.array(["", "ä:1", "long" * 50], dtype=object)
    entries = [
        {"a:b": np.ones((1, 2), np.float16), "text": text, "flag": np.array([True])},
        *({"text": np.array([str(number)], dtype=object)} for number in range(11)),
    ]
    save(tmp_path / "some.npz", entries)
    tensors = {
        "a:b": Tensor("a:b", "FP16", ()),
        "text": Tensor("text", "BYTES", ()),
        "flag": Tensor("flag", "BOOL", ()),
    }
    found = load(tmp_path / "some.npz", tensors)
    assert [list(entry) for entry in found] == [list(entry) for entry in entries]
    for wanted, entry in zip(entries, found, strict=True):
        for name, array in wanted.items():
            assert entry[name].dtype == array.dtype
            assert entry[name].tolist() == array.tolist()
