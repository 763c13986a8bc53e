"""Locks that many share or one has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store.locks import exclusive, shared, try_lock


def test_many_share_a_lock_and_one_has_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        shared(lock),
        shared(lock),
        pytest.raises(StoreError, match=r"it is busy; waited 0\.1 s"),
        exclusive(lock, wait=0.1, busy="it is busy"),
    ):
        pytest.fail("two had it")
    with exclusive(lock, wait=0.1, busy="it is busy"):
        pass
    with exclusive(lock):
        pass


def test_a_lock_ends_with_the_file_that_holds_it(tmp_path: Path) -> None:
    one, two = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert try_lock(one)
    assert not try_lock(two)
    os.close(one)
    assert try_lock(two)
    os.close(two)
