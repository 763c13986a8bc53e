from __future__ import annotations

import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError, StoreError
from tracklayer.files import locked, read_record, write_record, writing


def test_a_record_is_whole_and_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert read_record(path) is None
    write_record(path, {"a": 1})
    write_record(path, {"a": [2, "é"]})
    assert read_record(path) == {"a": [2, "é"]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_what_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, {"a": 1})
    with pytest.raises(TypeError):
        write_record(path, {"a": object()})
    assert read_record(path) == {"a": 1}


def test_a_full_disk_is_an_error_of_its_own(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match="no space is left"),
        writing(tmp_path),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x" * 100_000)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot write"), writing(tmp_path):
        (tmp_path / "file" / "below").mkdir()
    with pytest.raises(PlatformError, match="cannot write /proc"), writing(Path("/proc")):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/proc/x")


def test_a_lock_is_for_one(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with locked(tmp_path / ".lock"):
            order.append("second")

    with locked(tmp_path / ".lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
