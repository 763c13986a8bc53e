"""An object that is written from its start to its end."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracklayer.errors import StoreError
from tracklayer.store import Store
from tracklayer.store.seal import CHUNK

CONTENT = os.urandom(6 * CHUNK)
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 4 * CHUNK, 5 * CHUNK, 5 * CHUNK + 7]


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_stored(store: Store, tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(CONTENT[:size])
    blob = store.put_file(tmp_path / "f")
    assert (blob.digest, blob.size) == (digest(CONTENT[:size]), size)
    with store.open(blob) as stream:
        assert stream.read() == CONTENT[:size]
    assert store.verify() == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.sampled_from([0, 1, 5, 1000, CHUNK - 1, CHUNK, CHUNK + 1]), max_size=5))
def test_it_does_not_matter_how_it_is_cut(store: Store, sizes: list[int]) -> None:
    whole = CONTENT[: sum(sizes)]
    with store.create() as writer:
        place = 0
        for size in sizes:
            part = bytearray(whole[place : place + size])
            writer.write(part)
            part[:] = bytes(size)  # the memory is the caller's again
            place += size
        blob = writer.commit()
    assert (blob.digest, blob.size) == (digest(whole), len(whole))
    with store.open(blob) as stream:
        assert stream.read() == whole


def test_any_buffer_can_be_written(store: Store) -> None:
    with store.create() as writer:
        writer.write(memoryview(b"abcdef")[::1])
        writer.write(memoryview(bytearray(8)).cast("I"))
        blob = writer.commit()
    assert blob.digest == digest(b"abcdef" + bytes(8))


def test_what_is_not_committed_leaves_nothing(store: Store) -> None:
    with store.create() as writer:
        writer.write(CONTENT)

    def fail() -> None:
        with store.create() as writer:
            writer.write(CONTENT)
            raise RuntimeError("the download broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        fail()
    assert [path for path in store.root.rglob("*") if path.is_file()] == [store.root / "lock"]


def test_a_file_that_changes_meanwhile_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    read = os.readv

    def change(descriptor: int, buffers: list[memoryview]) -> int:
        with path.open("ab") as stream:
            stream.write(b"x" * 10)
        monkeypatch.setattr(os, "readv", read)
        return read(descriptor, buffers)

    monkeypatch.setattr(os, "readv", change)
    with pytest.raises(StoreError, match="changed while"):
        store.put_file(path)
    assert store.usage().sealed + store.usage().plain == 0


def test_a_file_that_cannot_be_read(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.put_file(tmp_path / "nope")
