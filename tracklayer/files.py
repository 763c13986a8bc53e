"""Small files that are whole or absent, readable by their owner alone; and their locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracklayer.errors import PlatformError, StoreError


def write_text(path: Path, text: str) -> None:
    """Replaces a file as a whole: after a crash it holds the old text or the new one.

    :raises OSError: it cannot be written; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_record(path: Path, record: dict[str, Any]) -> None:
    """:func:`write_text` of a JSON object."""
    write_text(path, json.dumps(record, indent=1))


def read_record(path: Path) -> dict[str, Any] | None:
    """What :func:`write_record` wrote; None where there is no such file."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


def mark(path: Path) -> tuple[int, ...] | None:
    """Another one after each change of a file; None where it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, *times)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Waits for the file's lock and gives its descriptor.

    A process that inherits the descriptor holds the lock on, until it closes it or ends.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Maps what a disk can do to us.

    :raises StoreError: the disk is full.
    :raises PlatformError: the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space is left on the disk of {folder} (at {where})",
                hint="free some space, or set TRACKLAYER_HOME to a larger disk",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise PlatformError(
                f"cannot write {where}: {error.strerror}",
                hint="give this user the right to write there, or set another TRACKLAYER_HOME",
            ) from error
        raise
