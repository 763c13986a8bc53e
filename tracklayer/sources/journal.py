"""One fetch at a time of the same content, and what it has so far, also after it was killed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tracklayer.sources.protocol import Progress, Remote
from tracklayer.store import Blob, Store
from tracklayer.store.disk import explained

_POLL = 0.05  # seconds
_SAID = 10.0


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    path: str
    promised: str | None
    size: int | None
    blob: Blob


class Journal:
    """A file in the store for each fetch that is under way: its lock, and a line for each file
    that is in the store. It is gone when the fetch is done.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path
        self._known: dict[tuple[str, str | None, int | None], Blob] = {}
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            for line in stream:
                try:
                    read = _Line.model_validate_json(line)
                except ValidationError:  # its writer was killed in the middle of it
                    continue
                self._known[read.path, read.promised, read.size] = read.blob

    def blob(self, remote: Remote) -> Blob | None:
        """What an earlier try stored of a file, if it is the same file."""
        return self._known.get((remote.path, remote.digest, remote.size))

    def note(self, remote: Remote, blob: Blob) -> None:
        """Write down that a file is in the store."""
        line = _Line(path=remote.path, promised=remote.digest, size=remote.size, blob=blob)
        # A line of its own also after one that was cut off.
        os.write(self._descriptor, b"\n" + line.model_dump_json().encode())

    def done(self) -> None:
        """The fetch is complete."""
        self._path.unlink(missing_ok=True)


@contextmanager
def journal(store: Store, key: str, report: Progress) -> Iterator[Journal]:
    """Wait until nobody else fetches what the key names.

    :raises StoreError: the store is not writable.
    """
    path = store.root / "fetches" / hashlib.sha256(key.encode()).hexdigest()
    with explained(store.root):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = _locked(path, report)
    try:
        yield Journal(descriptor, path)
    finally:
        os.close(descriptor)


def _locked(path: Path, report: Progress) -> int:
    said = -_SAID
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # whoever had it may be done, and the file gone
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BlockingIOError:
            if time.monotonic() > said + _SAID:
                said = time.monotonic()
                report("another run is fetching the same; waiting for it")
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_POLL)
