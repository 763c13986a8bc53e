"""A full disk at every write: one clear error, nothing half done, and it goes on with more room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import File, Store, scan
from tracklayer.store.keys import FileKeys
from tracklayer.store.seal import CHUNK

if TYPE_CHECKING:
    from tests.integration.conftest import TightDisk
    from tests.integration.store.conftest import Room

CONTENT = bytes(range(256)) * (CHUNK // 256) + b"12345"
HALF = CONTENT * 4


def put(room: Room) -> None:
    room.store.set_ref("new", room.put("new", big=CONTENT[:-1], small=b"new"))


def receive(room: Room) -> None:
    with room.store.draft("new", len(CONTENT)) as draft:
        for index in draft.missing():
            draft.write(index, CONTENT[index * CHUNK : (index + 1) * CHUNK])
        draft.commit()


def get(room: Room) -> None:
    room.store.materialise(room.tree("runs/x/1/train").digest, room.folder / "run" / "input")


def rotate(room: Room) -> None:
    room.store.rotate()


@pytest.mark.parametrize("work", [put, receive, get, rotate])
def test_at_every_step(
    furnished: Room, full_disk: Callable[[int], Any], work: Callable[[Room], None]
) -> None:
    """In each try the disk is full from one step on; then there is room again."""
    if work is put:  # whose files are there before the disk is full
        furnished.put("new", big=CONTENT[:-1], small=b"new")
        furnished.store.collect()
    for step in range(1, 200):
        room = furnished.copy(str(step))
        with full_disk(step) as calls:
            try:
                work(room)
            except StoreError as error:
                assert "Free some space" in str(error)  # noqa: PT017 - or it came to its end
        assert not [path for path in room.left_over() if path.parent.name == "tmp"]
        assert not (room.folder / "run" / "input").exists() or step > len(calls)
        room.check()
        work(room)
        room.check()
        assert room.left_over() == []
        if len(calls) < step:
            break
    assert step > 3
    if work is get:
        assert scan(room.folder / "run" / "input") == scan(room.folder / "files" / "a")


@pytest.mark.parametrize("work", [put, receive, get, rotate])
def test_at_every_page(
    furnished: Room, tight_disk: TightDisk, work: Callable[[Room], None]
) -> None:
    """The same on a real disk: whichever call it is that finds no room, at whatever byte."""
    if work is put:
        furnished.put("new", big=CONTENT[:-1], small=b"new")
        furnished.store.collect()
    furnished.move(tight_disk.folder / "room")
    refused = 0
    for pages in range(200):
        room = furnished.copy(f"room {pages}")
        tight_disk.leave(pages)
        try:
            work(room)
            done = True
        except StoreError as error:
            done = False
            assert "Free some space" in str(error)  # noqa: PT017 - or it came to its end
        tight_disk.clear()
        assert done or not (room.folder / "run" / "input").exists()
        room.check()
        work(room)
        room.check()
        assert room.left_over() == []
        shutil.rmtree(room.folder)
        if done:
            break
        refused += 1
    assert done
    assert refused > (0 if work is rotate else 3)  # which writes in place, but for the new key


@pytest.fixture
def small_disk(tmp_path: Path, give_up: Callable[[str], Never]) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        give_up("a file system cannot be mounted")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    store = Store(small_disk / "store", FileKeys(tmp_path / "keys", small_disk / "none"))
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "half").write_bytes(HALF)
    (tmp_path / "big").write_bytes(HALF * 3)
    store.set_ref("small", store.put_file(tmp_path / "small"))
    half = store.put_file(tmp_path / "half")
    twice = [File(path=name, digest=half.digest, size=half.size) for name in ("a", "b")]
    tree = store.put_manifest(twice)
    for _ in range(2):
        with pytest.raises(StoreError, match="No space left on device"):
            store.put_file(tmp_path / "big")

    def receive() -> None:
        with store.draft("x", 3 << 20) as draft:
            for index in draft.missing():
                draft.write(index, bytes(CHUNK))

    with pytest.raises(StoreError, match="No space left on device"):
        receive()
    with pytest.raises(StoreError, match="No space left on device"):
        store.materialise(tree.digest, small_disk / "run")
    assert not (small_disk / "run").exists()
    assert store.verify() == []
    assert not list(store.root.glob("tmp/*"))
    store.rotate()  # rewrites in place
    assert store.collect(quota=1 << 20).drafts == 1
    again = store.put_file(tmp_path / "half")
    with store.open(again) as stream:
        assert stream.read() == HALF
    assert store.verify() == []
