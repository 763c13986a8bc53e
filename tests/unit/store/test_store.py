"""The store: whole or not at all, verified, never changed through a copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import File, Manifest, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


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
    return sorted(store.root.glob("objects/*/*"))


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
    assert {p.stat().st_mode & 0o777 for p in objects(store)} == {0o400}
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
    path = store.root / "objects" / blob.digest[7:9] / blob.digest[9:]
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "wrong byte":
        content[1000] ^= 1
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


def test_names_survive_and_need_their_files(store: Store, tree: Path) -> None:
    manifest = store.put_tree(tree)
    assert store.recall("https://host/x#sha256=1") is None
    store.remember("https://host/x#sha256=1", manifest)
    store.remember("https://host/x#sha256=1", manifest)
    assert Store(store.root).recall("https://host/x#sha256=1") == manifest
    objects(store)[0].unlink()
    assert store.recall("https://host/x#sha256=1") is None


def test_many_writers_of_the_same_content(store: Store, tree: Path) -> None:
    def put(_: int) -> Manifest:
        return Store(store.root).put_tree(tree)

    with ThreadPoolExecutor(8) as pool:
        assert len({m.digest for m in pool.map(put, range(16))}) == 1
    assert store.verify() == []
    assert list((store.root / "tmp").iterdir()) == []


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_space_left(tmp_path: Path) -> None:
    """The limit on the size of a file makes a write end half way, as a full disk does."""
    (tmp_path / "big").write_bytes(os.urandom(200_000))
    (tmp_path / "small").write_text("fits")
    result = python(
        """
        import resource, sys
        from pathlib import Path
        from tracklayer.errors import StoreError
        from tracklayer.store import Store
        folder = Path(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        store = Store(folder / "store")
        store.put_file(folder / "small")
        try:
            store.put_file(folder / "big")
        except StoreError as error:
            print(error)
        """,
        tmp_path,
    )
    assert "Free some space" in result.stdout, result
    assert [p.read_text() for p in objects(Store(tmp_path / "store"))] == ["fits"]
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_killed_in_the_middle_of_a_put(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(300_000))
    result = python(
        """
        import os, shutil, signal, sys
        from pathlib import Path
        from tracklayer.store import Store
        folder = Path(sys.argv[1])
        copy = shutil.copyfile
        def half(source, target):
            target.write_bytes(source.read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)
        shutil.copyfile = half
        Store(folder / "store").put_file(folder / "big")
        """,
        tmp_path,
    )
    assert result.returncode == -9
    store = Store(tmp_path / "store")
    assert objects(store) == []
    left = next((store.root / "tmp").iterdir())
    os.utime(left, (0, 0))
    blob = store.put_file(tmp_path / "big")
    assert blob.size == 300_000
    assert not left.exists()
    assert store.verify() == []


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="must be able to read and write"):
        Store(tmp_path / "file" / "store").put_file(tmp_path / "file")


def test_a_damaged_name(store: Store, tree: Path) -> None:
    store.remember("key", store.put_tree(tree))
    path = next((store.root / "names").iterdir())
    path.chmod(0o600)
    path.write_text(json.dumps({"key": "key"}))
    with pytest.raises(StoreError, match="Remove"):
        store.recall("key")
