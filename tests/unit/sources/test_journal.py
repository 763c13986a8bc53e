"""The lock of a fetch, and what it had when it ended."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tracklayer.sources import Remote
from tracklayer.sources.journal import journal
from tracklayer.store import Blob, Store

ONE = Remote("a/b.csv", "https://host/f?token=hunter2", size=3, digest="md5:00")
BLOB = Blob(digest=f"sha256:{'0' * 64}", size=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_was_noted_is_known_to_the_next(store: Store) -> None:
    with journal(store, "k", print) as notes:  # and not done
        assert notes.blob(ONE) is None
        notes.note(ONE, BLOB)
    (file,) = (store.root / "fetches").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert "hunter2" not in file.read_text()
    with file.open("ab") as stream:
        stream.write(b'\n{"path": "cut o')  # as if killed while it was written
    with journal(store, "k", print) as notes:
        assert notes.blob(ONE) == BLOB
        assert notes.blob(replace(ONE, digest="md5:01")) is None
        assert notes.blob(replace(ONE, size=4)) is None
        notes.note(replace(ONE, path="c"), BLOB)
    with journal(store, "k", print) as notes:
        assert notes.blob(replace(ONE, path="c")) == BLOB
        notes.done()
    assert list((store.root / "fetches").iterdir()) == []
    with journal(store, "k", print) as notes:
        assert notes.blob(ONE) is None


def test_one_at_a_time(store: Store) -> None:
    """Also when the file is removed while others wait for it."""
    inside, most = [0], [0]
    said: list[str] = []
    lock = threading.Lock()

    def enter() -> None:
        with journal(store, "k", said.append) as notes:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.06)
            with lock:
                inside[0] -= 1
            notes.done()

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert said == ["another run is fetching the same; waiting for it"] * 5


def test_others_are_not_waited_for(store: Store) -> None:
    with journal(store, "k", print), journal(store, "other", print):
        pass
