"""The store: whole or not at all, verified, never changed through a copy."""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import File, Manifest, Store, keys_of, open_store, scan
from tracklayer.store.keys import FileKeys
from tracklayer.store.seal import fingerprint


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "sub" / "b.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "sub" / "run.sh").chmod(0o755)
    (folder / "sub" / "ümlaut ü.txt").write_text("two")
    (folder / "link.txt").symlink_to("a.txt")
    (folder / "empty").mkdir()
    return folder


def objects(store: Store) -> list[Path]:
    return [*store.root.glob("objects/*/*"), *store.root.glob("sealed/*/*")]


def test_a_tree_comes_back_as_it_was(store: Store, tree: Path, tmp_path: Path) -> None:
    manifest = store.put_tree(tree, origin={"handle": "path:tree"})
    store.materialise(manifest.digest, tmp_path / "out" / "data")
    out = tmp_path / "out" / "data"
    assert [f.path for f in manifest.files] == sorted(
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()
    )
    for file in manifest.files:
        assert (out / file.path).read_bytes() == (tree / file.path).read_bytes()
        assert not (out / file.path).stat().st_mode & 0o222
    assert os.access(out / "sub/run.sh", os.X_OK)
    assert not os.access(out / "a.txt", os.X_OK)
    assert store.manifest(manifest.digest) == manifest
    assert manifest.origin == {"handle": "path:tree"}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["data"]


def test_equal_content_is_one_object(store: Store, tree: Path) -> None:
    store.put_tree(tree)
    count = len(objects(store))
    assert count == 4  # link.txt is a.txt
    store.put_tree(tree)
    store.put_file(tree / "a.txt")
    assert len(objects(store)) == count
    assert {p.stat().st_mode & 0o077 for p in objects(store)} == {0}
    assert store.root.stat().st_mode & 0o777 == 0o700


def test_the_digest_of_a_tree_covers_names_modes_and_origin(store: Store, tree: Path) -> None:
    digests = {store.put_tree(tree).digest, store.put_tree(tree, origin={"a": "b"}).digest}
    (tree / "a.txt").chmod(0o755)
    digests.add(store.put_tree(tree).digest)
    (tree / "a.txt").rename(tree / "c.txt")
    (tree / "link.txt").unlink()
    digests.add(store.put_tree(tree).digest)
    assert len(digests) == 4
    one = store.put_tree(tree, origin={"x": "1", "y": "2"})
    assert store.put_tree(tree, origin={"y": "2", "x": "1"}).digest == one.digest


def test_moving_a_tree_leaves_no_copy(store: Store, tree: Path, tmp_path: Path) -> None:
    manifest = store.put_tree(tree, move=True)
    assert not (tree / "sub/b.bin").exists()
    store.materialise(manifest.digest, tmp_path / "out")
    assert (tmp_path / "out/link.txt").read_text() == "one"
    assert store.verify() == []


def test_a_job_cannot_change_the_store_through_its_copy(
    store: Store, tree: Path, tmp_path: Path
) -> None:
    manifest = store.put_tree(tree)
    store.materialise(manifest.digest, tmp_path / "out")
    copy = tmp_path / "out" / "a.txt"
    copy.chmod(0o644)
    copy.write_text("changed by the job")
    assert store.verify() == []
    with pytest.raises(StoreError, match="holds something other"):
        store.materialise(manifest.digest, tmp_path / "out")


def test_materialise_again_changes_nothing(store: Store, tree: Path, tmp_path: Path) -> None:
    manifest = store.put_tree(tree)
    store.materialise(manifest.digest, tmp_path / "out")
    before = (tmp_path / "out" / "a.txt").stat()
    store.materialise(manifest.digest, tmp_path / "out")
    after = (tmp_path / "out" / "a.txt").stat()
    # Not the time of the last access: to verify the file is to read it.
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


@pytest.mark.parametrize("damage", ["wrong byte", "truncated", "missing"])
def test_damage_is_found_and_nothing_half_done(
    store: Store, tree: Path, tmp_path: Path, damage: str
) -> None:
    manifest = store.put_tree(tree)
    blob = next(f for f in manifest.files if f.path == "sub/b.bin")
    [path] = (path for path in objects(store) if path.name == blob.digest[9:])
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "wrong byte":
        content[2000] ^= 1
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    with pytest.raises(StoreError, match=r"is damaged|not in the store"):
        store.materialise(manifest.digest, tmp_path / "job" / "out")
    assert list((tmp_path / "job").iterdir()) == []
    assert [problem for problem in store.verify() if blob.digest in problem]
    assert store.has(manifest) is (damage == "wrong byte")


def test_a_damaged_manifest_is_found(store: Store, tree: Path) -> None:
    digest = store.put_tree(tree).digest
    path = store.root / "manifests" / f"{digest[7:]}.json"
    document = path.read_text().replace("a.txt", "x.txt")
    path.unlink()
    path.write_text(document)
    with pytest.raises(StoreError, match="is damaged"):
        store.manifest(digest)
    path.write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        store.manifest(digest)
    assert len(store.verify()) == 1


@pytest.mark.parametrize("bad", ["../x", "/etc/passwd", "a/../../x", "", "a//b", "."])
def test_a_manifest_cannot_lead_out_of_its_tree(bad: str) -> None:
    with pytest.raises(ValueError, match="stays inside"):
        File(path=bad, digest="sha256:" + "0" * 64, size=1)


@pytest.mark.parametrize("bad", ["sha256:../../etc", "", "sha256:" + "Z" * 64])
def test_a_digest_is_a_digest(store: Store, bad: str) -> None:
    with pytest.raises(StoreError, match="is not a digest"):
        store.manifest(bad)


def test_an_unknown_digest(store: Store) -> None:
    with pytest.raises(StoreError, match="there is no tree"):
        store.manifest("sha256:" + "0" * 64)


def test_put_manifest_needs_its_files(store: Store, tree: Path) -> None:
    file = File(path="a", digest="sha256:" + "0" * 64, size=3)
    with pytest.raises(StoreError, match="not in the store"):
        store.put_manifest([file])
    there = store.put_tree(tree).files[0]
    with pytest.raises(StoreError, match="same path"):
        store.put_manifest([there, there])
    assert store.put_manifest([there]).files == (there,)


@pytest.mark.parametrize("kind", ["outside", "dangling", "folder", "fifo"])
def test_what_is_not_a_plain_file_is_refused(store: Store, tree: Path, kind: str) -> None:
    entry = tree / "entry"
    if kind == "fifo":
        os.mkfifo(entry)
    else:
        entry.symlink_to({"outside": "/etc/hostname", "dangling": "nope", "folder": "sub"}[kind])
    with pytest.raises(StoreError, match="'entry' is"):
        store.put_tree(tree)
    assert objects(store) == []


def test_a_missing_folder_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.put_tree(tmp_path / "nope")


def test_what_is_remembered_needs_its_files(store: Store, tree: Path) -> None:
    manifest = store.put_tree(tree)
    assert store.recall("https://host/x#sha256=1") is None
    store.remember("https://host/x#sha256=1", manifest)
    store.remember("https://host/x#sha256=1", manifest)
    assert store.recall("https://host/x#sha256=1") == manifest
    objects(store)[0].unlink()
    assert store.recall("https://host/x#sha256=1") is None


def test_many_writers_of_the_same_content(store: Store, tree: Path) -> None:
    def put(_: int) -> Manifest:
        return store.put_tree(tree)

    with ThreadPoolExecutor(8) as pool:
        assert len({m.digest for m in pool.map(put, range(16))}) == 1
    assert store.verify() == []
    assert list((store.root / "tmp").iterdir()) == []


def test_what_was_stored_plain_stays_readable(tmp_path: Path, tree: Path, sealed: Store) -> None:
    manifest = Store(sealed.root).put_tree(tree)
    sealed.materialise(manifest.digest, tmp_path / "out")
    assert scan(tmp_path / "out") == manifest.files
    with sealed.open(manifest.files[0]) as stream:
        assert stream.read() == b"one"
    # Stored again it is encrypted, and the plain copy goes.
    assert sealed.put_tree(tree) == manifest
    assert not list(sealed.root.glob("objects/*/*"))
    assert sealed.verify() == []


def test_without_keys_what_is_encrypted_names_its_key(
    tmp_path: Path, tree: Path, sealed: Store
) -> None:
    manifest = sealed.put_tree(tree)
    [key_id] = FileKeys(tmp_path / "keys" / "store", sealed.root).ids
    bare = Store(sealed.root)
    with pytest.raises(StoreError, match=f"encrypted with the key {key_id}"):
        bare.materialise(manifest.digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # What such a store gets is kept plain beside it, and read from there.
    bare.put_tree(tree)
    bare.materialise(manifest.digest, tmp_path / "out")
    assert scan(tmp_path / "out") == manifest.files


def test_a_lost_key_file_is_not_replaced(tmp_path: Path, tree: Path, sealed: Store) -> None:
    manifest = sealed.put_tree(tree)
    key = tmp_path / "keys" / "store"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(StoreError, match=r"key [0-9a-f]{16} is needed, and the key file"):
        sealed.materialise(manifest.digest, tmp_path / "out")
    (tree / "a.txt").write_text("new")
    with pytest.raises(StoreError, match="backup"):
        sealed.put_tree(tree)
    assert not key.exists()
    key.write_bytes(kept)
    key.chmod(0o600)
    sealed.materialise(manifest.digest, tmp_path / "out")


def test_content_under_a_wrong_key_is_not_taken_for_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("content")
    store = Store(tmp_path / "store", keys_of("env:KEYS_OF_THE_TEST", root=tmp_path / "store"))
    monkeypatch.setenv("KEYS_OF_THE_TEST", base64.b64encode(bytes(32)).decode())
    blob = store.put_file(tmp_path / "f")
    monkeypatch.setenv("KEYS_OF_THE_TEST", base64.b64encode(b"1" * 32).decode())
    with pytest.raises(StoreError, match=fingerprint(bytes(32))):
        store.put_file(tmp_path / "f")
    with pytest.raises(StoreError, match=fingerprint(bytes(32))):
        store.open(blob)


def test_a_damaged_object_is_mended_by_storing_it_again(sealed: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    blob = sealed.put_file(tmp_path / "f")
    [path] = objects(sealed)
    content = bytearray(path.read_bytes())
    content[80] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        sealed.open(blob)
    sealed.put_file(tmp_path / "f")
    with sealed.open(blob) as stream:
        assert stream.read() == b"content"


def test_an_object_under_the_name_of_another_is_refused(sealed: Store, tmp_path: Path) -> None:
    for name in ("f", "g"):
        (tmp_path / name).write_text(name)
    f, g = (sealed.put_file(tmp_path / name) for name in ("f", "g"))
    by_name = {path.name: path for path in objects(sealed)}
    by_name[f.digest[9:]].write_bytes(by_name[g.digest[9:]].read_bytes())
    with pytest.raises(StoreError, match="it is another object"):
        sealed.open(f)
    assert len(sealed.verify()) == 1


def test_the_store_of_the_settings_is_encrypted(own_home: Path, tree: Path) -> None:
    store = open_store()
    store.put_tree(tree)
    assert store.usage().sealed == 4
    assert store.usage().plain == 0
    [key] = (own_home / "keys").glob("store")
    assert key.stat().st_mode & 0o777 == 0o600
