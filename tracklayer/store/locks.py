"""Locks of the store: held by an open file, so they end with their process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracklayer.errors import StoreError

_POLL = 0.05  # seconds


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Many may hold it at once, nobody while it is held exclusively."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, *, wait: float | None = None, busy: str = "") -> Iterator[int]:
    """One may hold it, and then nobody shares it; gives the descriptor.

    :param wait: seconds after which to give up; None waits for ever.
    :param busy: what to say then.
    :raises StoreError: somebody still had it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if wait is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            acquire(descriptor, wait=wait, busy=busy)
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take an open file's lock exclusively, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def acquire(descriptor: int, *, wait: float, busy: str) -> None:
    """Take an open file's lock exclusively.

    :param wait: seconds after which to give up, and ``busy`` what to say then.
    :raises StoreError: somebody still had it.
    """
    deadline = time.monotonic() + wait
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            raise StoreError(f"{busy}; waited {wait:g} s", hint="Try again when that is done.")
        time.sleep(_POLL)
