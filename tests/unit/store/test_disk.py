"""Files that are whole or absent, and gone with whoever did not finish them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store.disk import Disk, becoming, explained, make_folder, read_all, sync, write_all


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "store")


def test_a_folder_is_private_and_gone_at_the_end(disk: Disk) -> None:
    with disk.scratch() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "sub").mkdir()
        (folder / "sub" / "f").write_text("x")
    assert not list(disk.folder("tmp").iterdir())


def test_an_error_inside_a_folder_stays_what_it_is(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError), disk.scratch() as folder:
        (folder / "nope").read_text()
    assert not list(disk.folder("tmp").iterdir())


def test_what_is_in_use_is_not_swept(disk: Disk) -> None:
    with disk.scratch() as folder, disk.temporary() as (path, _):
        Disk(disk.root).sweep()
        assert folder.exists()
        assert path.exists()


def test_what_a_killed_process_left_is_swept_by_the_next(disk: Disk) -> None:
    with disk.scratch():
        pass
    left = disk.folder("tmp") / "left"
    left.touch()
    left.with_suffix(".d").mkdir()
    (left.with_suffix(".d") / "secret").write_text("plain text")
    other = disk.folder("tmp") / "of-an-older-layout"
    other.mkdir()
    with Disk(disk.root).scratch():
        assert not left.exists()
        assert not left.with_suffix(".d").exists()
        assert other.exists()
    os.utime(other, (0, 0))
    Disk(disk.root).sweep()
    assert not other.exists()


def test_a_small_file_is_replaced_as_a_whole(disk: Disk) -> None:
    disk.write_small(disk.root / "a" / "b" / "c", b"one")
    disk.write_small(disk.root / "a" / "b" / "c", b"two")
    assert (disk.root / "a" / "b" / "c").read_bytes() == b"two"
    assert not list(disk.folder("tmp").iterdir())


def test_a_tree_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    into = tmp_path / "new" / "tree"

    def fail() -> None:
        with becoming(into) as fresh:
            (fresh / "half").touch()
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail()
    assert list((tmp_path / "new").iterdir()) == []
    with becoming(into) as fresh:
        assert fresh.stat().st_mode & 0o777 == 0o700
        (fresh / "whole").touch()
        assert not into.exists()
    assert [path.name for path in into.iterdir()] == ["whole"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tree"]


def test_what_a_killed_process_left_beside_a_tree_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".tree.abc"
    left.mkdir()
    (left / "secret").write_text("plain text")
    with becoming(tmp_path / "tree") as first:
        assert not left.exists()
        with becoming(tmp_path / "tree") as second:
            assert first != second  # one that is in use stays
            assert first.exists()
        (tmp_path / "tree").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_reading_and_writing_go_on_after_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:3], at))
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: read(fd, [into[0][:2]], at))
    descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    write_all(descriptor, b"0123456789", 5)
    into = memoryview(bytearray(9))
    read_all(descriptor, into, 6)
    assert bytes(into) == b"123456789"
    with pytest.raises(EOFError):
        read_all(descriptor, into, 7)
    os.close(descriptor)


def test_folders_and_syncing(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nope")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EROFS, "must be able to read and write"),
        (errno.EACCES, "must be able to read and write"),
    ],
)
def test_what_the_file_system_says_is_explained(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(StoreError, match=advice) as error, explained(tmp_path):
        raise OSError(number, os.strerror(number), "the/file")
    assert "the/file" in error.value.message
