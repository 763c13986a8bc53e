"""Encrypted files as a whole and in part."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import Store
from tracklayer.store.keys import FileKeys
from tracklayer.store.seal import CHUNK, FRAME, HEADER, Damage, sealed_size
from tracklayer.store.stream import seal, unseal

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]


@pytest.fixture
def keys(tmp_path: Path) -> FileKeys:
    return FileKeys(tmp_path / "key", tmp_path / "none")


def sealed_file(folder: Path, content: bytes, keys: FileKeys) -> Path:
    (folder / "plain").write_bytes(content)
    path = folder / "sealed"
    # Longer than it will be: what is left of an older file does not stay.
    path.write_bytes(b"x" * (len(content) + 3 * CHUNK))
    with (folder / "plain").open("rb") as source, path.open("r+b") as target:
        seal(source, target, keys)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_a_file_comes_back(tmp_path: Path, keys: FileKeys, size: int) -> None:
    content = os.urandom(size)
    path = sealed_file(tmp_path, content, keys)
    assert path.stat().st_size == sealed_size(size)
    with path.open("rb") as source, (tmp_path / "out").open("w+b") as target:
        unseal(source, target, keys)
    assert (tmp_path / "out").read_bytes() == content


@pytest.mark.parametrize("at", range(4))
def test_a_file_that_ends_at_a_chunk_is_refused(tmp_path: Path, keys: FileKeys, at: int) -> None:
    path = sealed_file(tmp_path, bytes(3 * CHUNK + 5), keys)
    os.truncate(path, HEADER + at * FRAME)
    with (
        path.open("rb") as source,
        (tmp_path / "out").open("w+b") as target,
        pytest.raises(Damage, match="instead of"),
    ):
        unseal(source, target, keys)


@pytest.mark.parametrize("size", SIZES)
def test_any_part_can_be_read(sealed: Store, size: int) -> None:
    content = os.urandom(size)
    with sealed.create() as writer:
        writer.write(content)
        blob = writer.commit()
    chance = random.Random(size)
    edges = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, size - 1, size, size + 1]
    places = [place for place in edges if place >= 0]
    places += [chance.randrange(size + 1) for _ in range(30)]
    with sealed.open(blob) as stream:
        assert stream.seekable()
        assert not stream.writable()
        for place in places:
            count = chance.choice([1, 100, CHUNK, 2 * CHUNK + 3, -1])
            assert stream.seek(place) == place
            expected = content[place:] if count < 0 else content[place : place + count]
            assert stream.read(count) == expected
            assert stream.tell() == max(place, place + len(expected))
        assert stream.seek(0, os.SEEK_END) == size
        stream.seek(0)
        assert b"".join(iter(lambda: stream.read(70_001), b"")) == content
    assert stream.closed


def test_lines_of_text_can_be_read(sealed: Store) -> None:
    lines = [f"line {number}\n" for number in range(200_000)]
    with sealed.create() as writer:
        writer.write("".join(lines).encode())
        blob = writer.commit()
    with io.TextIOWrapper(sealed.open(blob)) as text:
        assert list(text) == lines


def test_only_what_is_read_is_decrypted(sealed: Store) -> None:
    """A damaged chunk harms whoever reads it, and says where it is."""
    with sealed.create() as writer:
        writer.write(bytes(4 * CHUNK))
        blob = writer.commit()
    [path] = sealed.root.glob("sealed/*/*")
    with path.open("r+b") as stream:
        stream.seek(HEADER + 2 * FRAME + 17)
        stream.write(b"x")
    with sealed.open(blob) as reader:
        assert reader.read(2 * CHUNK) == bytes(2 * CHUNK)
        reader.seek(3 * CHUNK)
        assert reader.read() == bytes(CHUNK)
        reader.seek(2 * CHUNK)
        with pytest.raises(StoreError, match=f"{blob.digest}.*chunk 2") as caught:
            reader.read(1)
    assert f"Remove {path}" in str(caught.value)


def test_a_position_before_the_start_is_refused(sealed: Store) -> None:
    with sealed.create() as writer:
        blob = writer.commit()
    with sealed.open(blob) as stream, pytest.raises(ValueError, match="before the start"):
        stream.seek(-1)
