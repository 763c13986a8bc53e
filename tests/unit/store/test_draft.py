"""An object that arrives in any order, and goes on where it ended."""

from __future__ import annotations

import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import Blob, Draft, Store
from tracklayer.store.seal import CHUNK, FRAME, HEADER

SIZE = 5 * CHUNK + 7
CONTENT = os.urandom(SIZE)
BLOB = Blob(digest=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", size=SIZE)


def chunk(index: int) -> bytes:
    return CONTENT[index * CHUNK : (index + 1) * CHUNK]


def receive(draft: Draft, indices: list[int]) -> None:
    for index in indices:
        draft.write(index, chunk(index))


def data(store: Store) -> Path:
    [path] = store.root.glob("drafts/*/data")
    return path


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, SIZE])
def test_it_becomes_the_object_that_a_writer_makes(store: Store, size: int) -> None:
    content = CONTENT[:size]
    also = [hashlib.md5(usedforsecurity=False), hashlib.sha1(b"blob", usedforsecurity=False)]
    with store.draft("x", size, also=also) as draft:
        missing = draft.missing()
        assert missing == list(range(-(-size // CHUNK)))
        random.Random(size).shuffle(missing)
        for index in missing:
            draft.write(index, content[index * CHUNK : (index + 1) * CHUNK])
        blob = draft.commit()
    assert blob.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert also[0].hexdigest() == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert also[1].digest() == hashlib.sha1(b"blob" + content, usedforsecurity=False).digest()
    with store.open(blob) as stream:
        assert stream.read() == content
    assert store.verify() == []
    assert not list(store.root.glob("drafts/*"))


def test_it_goes_on_where_it_ended(store: Store) -> None:
    with store.draft("x", SIZE) as draft:
        receive(draft, [4, 0, 2])
    also = hashlib.md5(usedforsecurity=False)
    with store.draft("x", SIZE, also=[also]) as draft:
        assert draft.missing() == [1, 3, 5]
        receive(draft, [5, 3, 1])
        assert draft.commit() == BLOB
    assert also.digest() == hashlib.md5(CONTENT, usedforsecurity=False).digest()
    with store.draft("x", SIZE) as draft:
        assert draft.missing() == [0, 1, 2, 3, 4, 5]


def test_what_was_complete_needs_only_the_commit(store: Store) -> None:
    with store.draft("x", SIZE) as draft:
        receive(draft, draft.missing())
    with store.draft("x", SIZE) as draft:
        assert draft.missing() == []
        assert draft.commit() == BLOB


def test_many_threads_may_write(store: Store) -> None:
    with store.draft("x", SIZE) as draft, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda index: draft.write(index, chunk(index)), [*range(6), *range(6)]))
        assert draft.commit() == BLOB
    assert store.verify() == []


def test_a_chunk_that_is_there_stays(store: Store) -> None:
    with store.draft("x", SIZE) as draft:
        receive(draft, draft.missing())
        draft.write(2, bytes(CHUNK))
        assert draft.commit() == BLOB


def test_a_chunk_has_its_length_and_place(store: Store) -> None:
    with store.draft("x", SIZE) as draft:
        for index, wrong in [(0, b""), (5, bytes(8)), (6, b""), (-1, bytes(CHUNK))]:
            with pytest.raises(StoreError, match="are not chunk"):
                draft.write(index, wrong)


def test_what_is_missing_is_said_and_kept(store: Store) -> None:
    with store.draft("x", SIZE) as draft:
        receive(draft, [0, 1])
        with pytest.raises(StoreError, match="4 of 6 chunks are missing"):
            draft.commit()
        receive(draft, [2, 3, 4, 5])
        assert draft.commit() == BLOB


def test_discarded_it_begins_anew(store: Store) -> None:
    with store.draft("x", SIZE) as draft:
        receive(draft, [0, 1])
        draft.discard()
    assert not list(store.root.glob("drafts/*"))
    with store.draft("x", SIZE) as draft:
        assert draft.missing() == [0, 1, 2, 3, 4, 5]


def test_another_size_begins_anew(store: Store) -> None:
    with store.draft("x", SIZE) as draft:
        receive(draft, [0, 1])
    with store.draft("x", 2 * CHUNK) as draft:
        assert draft.missing() == [0, 1]
    with store.draft("y", SIZE) as draft:
        assert len(draft.missing()) == 6


@pytest.mark.parametrize("place", [HEADER + FRAME + 100, HEADER + 2 * FRAME - 1])
def test_a_torn_chunk_counts_as_missing(sealed: Store, place: int) -> None:
    """As a power cut leaves it: the mark is on the disk, the content is not."""
    with sealed.draft("x", SIZE) as draft:
        receive(draft, [0, 1, 2])
    with data(sealed).open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))
    with sealed.draft("x", SIZE) as draft:
        assert draft.missing() == [1, 3, 4, 5]
        receive(draft, draft.missing())
        assert draft.commit() == BLOB
    assert sealed.verify() == []


def test_damage_between_two_tries_is_found_by_the_next(sealed: Store) -> None:
    with sealed.draft("x", SIZE) as draft:
        receive(draft, [1])
    with data(sealed).open("r+b") as stream:
        stream.seek(HEADER + FRAME + 100)
        stream.write(b"xxxx")
    with sealed.draft("x", SIZE) as draft:
        assert 1 in draft.missing()
        receive(draft, draft.missing())
        assert draft.commit() == BLOB


def test_two_may_bring_the_same_chunk(sealed: Store) -> None:
    with sealed.draft("x", SIZE) as draft:
        for other in (bytes(CHUNK), CONTENT[:CHUNK]):
            draft.write(0, other)
        assert 0 not in draft.missing()
        receive(draft, draft.missing())
        blob = draft.commit()
    with sealed.open(blob) as stream:
        assert stream.read(CHUNK) == bytes(CHUNK)
    assert sealed.verify() == []


@pytest.mark.parametrize("harm", ["header", "length", "marks", "key", "mode"])
def test_what_cannot_be_gone_on_with_begins_anew(sealed: Store, tmp_path: Path, harm: str) -> None:
    with sealed.draft("x", SIZE) as draft:
        receive(draft, [0, 1, 2])
    path = data(sealed)
    if harm == "header":
        with path.open("r+b") as stream:
            stream.write(b"xxxx")
    elif harm == "length":
        os.truncate(path, SIZE)
    elif harm == "marks":
        path.with_name("arrived").unlink()
    elif harm == "key":
        (tmp_path / "keys" / "store").unlink()
    store = Store(sealed.root) if harm == "mode" else sealed
    with store.draft("x", SIZE) as draft:
        assert len(draft.missing()) == 6
        receive(draft, draft.missing())
        assert draft.commit() == BLOB
    assert store.verify() == []


def test_a_rotated_key_begins_it_anew_but_not_while_it_is_open(sealed: Store) -> None:
    with sealed.draft("x", SIZE) as draft:
        receive(draft, [0, 1, 2])
        sealed.rotate()
        receive(draft, [3, 4, 5])
        assert draft.commit() == BLOB
    assert sealed.verify() == []
    with sealed.draft("y", SIZE) as draft:
        receive(draft, [0])
    sealed.rotate()
    with sealed.draft("y", SIZE) as draft:
        assert len(draft.missing()) == 6
    assert sealed.verify() == []


def test_content_that_is_there_already_stays_one_object(store: Store) -> None:
    for name in ("x", "y"):
        with store.draft(name, SIZE) as draft:
            receive(draft, draft.missing())
            assert draft.commit() == BLOB
    assert store.usage().sealed + store.usage().plain == 1


def test_two_threads_of_one_name_wait_for_each_other(store: Store) -> None:
    def fetch(_: int) -> int:
        with store.draft("x", SIZE) as draft:
            missing = draft.missing()
            receive(draft, missing)
            draft.commit()
            return len(missing)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fetch, range(4))) == [6, 6, 6, 6]
    assert store.verify() == []
