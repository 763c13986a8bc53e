"""A job's output as lines, while it is written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self

LONGEST = 32 * 1024  # bytes of one line; a longer one comes in pieces
PROGRESS = 2.0  # seconds between two states of a progress bar
_CHUNK = 256 * 1024


def _state(line: bytes) -> bytes:
    """What a terminal shows of a line at last: what stands after the last carriage return."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class LogTail:
    """Reads a growing file from a byte offset; undecodable bytes are replaced.

    The file may appear later. Once it is there it is read to its end under whatever name it has
    then: a later attempt has its own under the old name. A context manager, which closes it.

    ``offset`` is where the next line begins: a later reader can go on there.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._stack = ExitStack()
        self._rest = b""
        self._progress = time.monotonic()
        self.offset = offset

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def lines(self) -> Iterator[str]:
        """The lines that were completed since the last call."""
        file = self._opened()
        if file is None:
            return
        end = os.fstat(file.fileno()).st_size
        file.seek(self.offset + len(self._rest))
        while (left := end - file.tell()) > 0 and (chunk := file.read(min(_CHUNK, left))):
            self._rest += chunk
            yield from self._complete()
        if b"\r" in self._rest and time.monotonic() - self._progress >= PROGRESS:
            self._progress = time.monotonic()
            yield from _pieces(self._take(self._rest.rindex(b"\r") + 1))

    def last(self) -> Iterator[str]:
        """The lines that are left when nobody writes any more, the unfinished one included."""
        yield from self.lines()
        if self._rest:
            yield from _pieces(self._take(len(self._rest)))

    def _opened(self) -> BinaryIO | None:
        if self._file is None:
            try:
                self._file = self._stack.enter_context(self._path.open("rb"))
            except FileNotFoundError:
                return None
        return self._file

    def _take(self, size: int) -> bytes:
        taken, self._rest = self._rest[:size], self._rest[size:]
        self.offset += size
        return taken

    def _complete(self) -> Iterator[str]:
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self.offset += len(line) + 1
            yield from _pieces(line)
        if len(self._rest) > LONGEST:
            self._take(self._rest.rfind(b"\r") + 1)  # states that the next one has overwritten
        while len(self._rest) > LONGEST:
            yield from _pieces(self._take(_boundary(self._rest)))


def _pieces(line: bytes) -> Iterator[str]:
    """A line as text, in pieces if it is very long."""
    line = _state(line)
    while len(line) > LONGEST:
        cut = _boundary(line)
        yield line[:cut].decode("utf-8", "replace")
        line = line[cut:]
    yield line.decode("utf-8", "replace")


def _boundary(line: bytes) -> int:
    """Where to cut a line of more than ``LONGEST`` bytes without cutting a character."""
    return next((n for n in range(LONGEST, LONGEST - 4, -1) if line[n] & 0xC0 != 0x80), LONGEST)
