from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import safetensors.numpy

from tracklayer.errors import SourceError
from tracklayer.formats import ALLOW, check, policy
from tracklayer.store import Store
from tracklayer.store.keys import keys_of

Files = list[tuple[str, Callable[[], BinaryIO]]]
WEIGHTS = safetensors.numpy.save({"x": np.zeros(4)})
NONE: frozenset[str] = frozenset()


def files(**contents: bytes) -> Files:
    return [(path, partial(io.BytesIO, data)) for path, data in contents.items()]


def test_the_formats_by_path() -> None:
    found = check(files(**{"m/model.safetensors": WEIGHTS, "README.md": b"# A\n"}), allow=NONE)
    assert found == {"m/model.safetensors": "safetensors", "README.md": "Markdown"}


def test_what_is_refused_is_named_with_what_to_do() -> None:
    contents = {
        "pytorch_model.bin": pickle.dumps([1]),
        "model.safetensors": WEIGHTS,
        "modeling.py": b"import os\n",
        "blob\n.dat": b"\0\1",
    }
    with pytest.raises(SourceError) as caught:
        check(files(**contents), allow=NONE)
    assert caught.value.message.splitlines() == [
        "3 of 4 files are refused, by their content:",
        "  blob?.dat: binary; nobody can say what reading it does",
        "  modeling.py: Python source; it is code, or names code, of others",
        "  pytorch_model.bin: pickle; loading it can run any code",
    ]
    hint = caught.value.hint or ""
    assert "a model (model.safetensors is one)" in hint
    assert "`allow: [pickle, remote-code, unknown]` under the source in tracklayer.yaml" in hint
    assert "a commit, a version or a digest" in hint


def test_at_most_ten_are_listed() -> None:
    contents = {f"{i:02}.bin": b"\0" for i in range(25)}
    with pytest.raises(SourceError) as caught:
        check(files(**contents), allow=NONE)
    lines = caught.value.message.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("25 of 25")
    assert lines[-1] == "  and 15 more"


@pytest.mark.parametrize(
    ("word", "data", "name"),
    [
        ("pickle", pickle.dumps([1]), "pickle"),
        ("remote-code", b"#!/bin/sh\n", "script"),
        ("unknown", b"\0\1", "binary"),
    ],
)
def test_each_word_allows_its_own_risk_only(word: str, data: bytes, name: str) -> None:
    assert check(files(x=data), allow=frozenset({word})) == {"x": name}
    with pytest.raises(SourceError, match=rf"allow: \[{word}\]"):
        check(files(x=data), allow=frozenset(ALLOW.values()) - {word})


def test_what_each_kind_of_source_may_bring_unasked() -> None:
    assert policy("path") == {"pickle", "remote-code", "unknown"}
    for scheme in ("git+https", "git+ssh", "git+file"):
        assert policy(scheme) == {"remote-code", "unknown"}
    for scheme in ("hf", "kaggle", "s3", "https", "http", "somebodys-own"):
        assert policy(scheme) == NONE


def test_many_small_files_take_no_time(tmp_path: Path) -> None:
    for index in range(500):
        (tmp_path / f"{index}.json").write_bytes(b'{"a": 1}\n' * 1000)
    listed: Files = [(path.name, partial(path.open, "rb")) for path in tmp_path.iterdir()]
    before = time.process_time()
    assert set(check(listed, allow=NONE).values()) == {"JSON"}
    assert time.process_time() - before < 1


def test_of_a_large_encrypted_file_little_is_read(tmp_path: Path) -> None:
    """Head and tail, and for each size of a file once more: a superblock of HDF5 may lie there."""
    store = Store(tmp_path / "store", keys_of(f"file:{tmp_path / 'keys'}", root=tmp_path))
    weights = tmp_path / "weights"
    weights.write_bytes(safetensors.numpy.save({"x": np.zeros((40, 1 << 17))}))
    blob = store.put_file(weights)
    reads = []

    class Counting(io.RawIOBase):
        def __init__(self) -> None:
            self.stream = store.open(blob)

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
            return self.stream.seek(offset, whence)

        def read(self, size: int = -1) -> bytes:
            data = self.stream.read(size)
            reads.append(len(data))
            return data

        def close(self) -> None:
            self.stream.close()
            super().close()

    assert check([("model.safetensors", Counting)], allow=NONE) == {
        "model.safetensors": "safetensors"
    }
    assert sum(reads) < blob.size / 30
