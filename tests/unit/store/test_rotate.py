"""A new key for everything."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import Blob, Store, keys_of
from tracklayer.store.keys import FileKeys
from tracklayer.store.seal import CHUNK, HEADER, SLOT, Header, fingerprint


def put(store: Store, *contents: bytes) -> list[Blob]:
    blobs = []
    for content in contents:
        with store.create() as writer:
            writer.write(content)
            blobs.append(writer.commit())
    return blobs


def headers(store: Store) -> list[bytes]:
    return [path.read_bytes()[:HEADER] for path in sorted(store.root.glob("sealed/??/*"))]


def bodies(store: Store) -> list[bytes]:
    return [path.read_bytes()[HEADER:] for path in sorted(store.root.glob("sealed/??/*"))]


def key_ids(store: Store) -> set[str]:
    return {slot.key_id for raw in headers(store) for slot in Header.parse(raw).newest}


@pytest.fixture
def keys(tmp_path: Path) -> FileKeys:
    return FileKeys(tmp_path / "keys" / "store", tmp_path / "store" / "sealed")


def test_everything_is_under_the_new_key_and_the_old_one_is_gone(
    sealed: Store, keys: FileKeys, tmp_path: Path
) -> None:
    blobs = put(sealed, b"", b"one", bytes(2 * CHUNK + 1))
    old, old_key = keys.current
    before = bodies(sealed)
    done = sealed.rotate()
    assert (done.made, done.rewrapped, done.sealed) == (True, 3, 0)
    assert done.unused == (old,)
    assert done.problems == ()
    assert keys.ids == [done.key]
    assert key_ids(sealed) == {done.key}
    assert base64.b64encode(old_key) not in (tmp_path / "keys" / "store").read_bytes()
    # Contents are not rewritten, and no older slot is left in a header.
    assert bodies(sealed) == before
    assert all(len(Header.parse(raw).newest) == 1 for raw in headers(sealed))
    assert all(bytes.fromhex(old) not in raw for raw in headers(sealed))
    for blob, content in zip(blobs, [b"", b"one", bytes(2 * CHUNK + 1)], strict=True):
        with sealed.open(blob) as stream:
            assert stream.read() == content
    assert sealed.verify() == []
    # Again and again, in either slot.
    for _ in range(3):
        assert sealed.rotate().rewrapped == 3
        assert sealed.verify() == []


def test_a_reader_goes_on_while_keys_change(sealed: Store) -> None:
    [blob] = put(sealed, bytes(3 * CHUNK))
    with sealed.open(blob) as stream:
        assert stream.read(CHUNK) == bytes(CHUNK)
        sealed.rotate()
        assert stream.read() == bytes(2 * CHUNK)


def test_another_process_notices_the_new_key(sealed: Store, tmp_path: Path) -> None:
    [blob] = put(sealed, b"one")
    root = sealed.root
    other = Store(root, keys_of(f"file:{tmp_path / 'keys' / 'store'}", root=root))
    with other.open(blob) as stream:
        assert stream.read() == b"one"
    sealed.rotate()
    with other.open(blob) as stream:
        assert stream.read() == b"one"
    put(other, b"two")
    assert len(key_ids(sealed)) == 1


def test_what_lies_plain_is_encrypted(sealed: Store, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in "ab":
        (tmp_path / "tree" / name).write_text(name)
    manifest = Store(sealed.root).put_tree(tmp_path / "tree")
    done = sealed.rotate()
    assert (done.made, done.rewrapped, done.sealed) == (False, 0, 2)
    assert not list(sealed.root.glob("objects/??/*"))
    sealed.materialise(manifest.digest, tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "a"
    assert sealed.verify() == []


def test_an_ended_rotation_is_finished_without_another_key(sealed: Store, keys: FileKeys) -> None:
    put(sealed, b"one", b"two")
    old, _ = keys.current
    new = keys.new()
    done = sealed.rotate()
    assert (done.key, done.made, done.rewrapped) == (new, False, 2)
    assert done.unused == (old,)
    assert keys.ids == [new]


def test_an_old_slot_that_was_not_wiped_is_wiped(sealed: Store, keys: FileKeys) -> None:
    put(sealed, b"one")
    [path] = sealed.root.glob("sealed/??/*")
    before = path.read_bytes()
    sealed.rotate()
    after = bytearray(path.read_bytes())
    after[64 : 64 + SLOT] = before[64 : 64 + SLOT]
    path.write_bytes(after)
    keys.new()
    sealed.rotate()
    assert len(Header.parse(path.read_bytes()[:HEADER]).newest) == 1
    assert sealed.verify() == []


def test_a_variable_is_rotated_by_whoever_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "s", keys_of("env:KEYS_OF_THE_TEST", root=tmp_path / "s"))
    one, two = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
    monkeypatch.setenv("KEYS_OF_THE_TEST", one)
    [blob] = put(store, b"one")
    with pytest.raises(StoreError, match="Put a new key first"):
        store.rotate()
    monkeypatch.setenv("KEYS_OF_THE_TEST", f"{two},{one}")
    done = store.rotate()
    assert (done.key, done.made, done.rewrapped) == (fingerprint(b"\2" * 32), False, 1)
    assert done.unused == (fingerprint(b"\1" * 32),)
    monkeypatch.setenv("KEYS_OF_THE_TEST", two)
    with store.open(blob) as stream:
        assert stream.read() == b"one"


def test_what_cannot_be_rotated_is_said_and_its_key_kept(sealed: Store, keys: FileKeys) -> None:
    put(sealed, b"one", b"two", b"three")
    damaged, plain, *_ = sorted(sealed.root.glob("sealed/??/*"))
    old, _ = keys.current
    raw = bytearray(damaged.read_bytes())
    raw[30] ^= 1  # the header's prefix
    damaged.write_bytes(raw)
    plain.write_text("not encrypted")
    done = sealed.rotate()
    assert (done.made, done.rewrapped) == (True, 1)
    assert len(done.problems) == 2
    assert all("sha256:" in problem for problem in done.problems)
    assert done.unused == ()
    assert list(keys.ids) == [done.key, old]
    # That one object does not keep later rotations from happening.
    again = sealed.rotate()
    assert (again.made, again.rewrapped) == (True, 1)
    assert again.unused == (done.key,)


def test_a_damaged_plain_object_stays(sealed: Store) -> None:
    put(Store(sealed.root), b"one")
    [path] = sealed.root.glob("objects/??/*")
    path.chmod(0o600)
    path.write_text("other")
    done = sealed.rotate()
    assert done.sealed == 0
    assert "its content is another" in done.problems[0]
    assert path.exists()


def test_without_encryption_there_is_nothing_to_rotate(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not encrypted"):
        Store(tmp_path / "store").rotate()


def test_under_a_kibibyte_is_written_for_an_object(
    sealed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sealed, *(bytes([number]) * 100 for number in range(10)))
    count = 0
    write = os.pwrite

    def counted(descriptor: int, data: bytes, place: int) -> int:
        nonlocal count
        count += len(data)
        return write(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", counted)
    assert sealed.rotate().rewrapped == 10
    assert count == 10 * 2 * SLOT < 10 * 1024
