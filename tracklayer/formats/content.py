"""The bytes of one file, as far as they are looked at: its head, its tail, and little between."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Risk = Literal["pickle", "code", "unknown"]
_WORST: tuple[Risk | None, ...] = ("pickle", "code", "unknown", None)

HEAD = 1 << 16
"""Bytes that are read of every file."""
_END_OF_ZIP = 22 + 0xFFFF
_LONGEST = 4 << 30
"""Bytes that are looked at of what comes out of an archive or a compressed file."""


@dataclass(frozen=True, slots=True)
class Format:
    """What a file is.

    ``risk``: None, or why nobody is given it unasked: ``"pickle"`` (loading it can run any code),
    ``"code"`` (it is code, or names code that is imported) or ``"unknown"``.
    """

    name: str
    risk: Risk | None = None

    def worse_than(self, other: Format) -> bool:
        """Is its risk the greater one?"""
        return _WORST.index(self.risk) < _WORST.index(other.risk)


def shown(path: str) -> str:
    """A path that somebody else chose, as it may stand in a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in path[:200])


class UnreadableError(Exception):
    """The content cannot be looked at; the message names what it is instead of a format."""


class Content:
    """A view of bytes that have to be read in order: what comes out of a compressed file.

    :param begin: gives a stream at the first byte, each time that reading has to start again.
    :param size: bytes, if somebody knows.
    """

    def __init__(self, begin: Callable[[], IO[bytes]], size: int | None = None) -> None:
        self._begin = begin
        self.stream = begin()
        self._start = 0
        self.head = self._window = _read(self.stream, HEAD)
        self.size = len(self.head) if len(self.head) < HEAD else size

    @cached_property
    def tail(self) -> bytes:
        """The last bytes, more than the end record of a zip archive can have; none where they
        cannot be had cheaply."""
        return self.head if self.size == len(self.head) else b""

    def has(self, end: int) -> bool:
        """Are there at least ``end`` bytes, as far as one knows?"""
        return self.size is None or end <= self.size

    def ends_at(self, end: int) -> bool:
        """Are there exactly ``end`` bytes, as far as one knows?"""
        return self.size is None or end == self.size

    def at(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``; fewer where the content ends.

        :raises UnreadableError: they are too far away.
        """
        if offset + length <= len(self.head) or self.size == len(self.head):
            return self.head[offset : offset + length]
        if self.size is not None and offset >= self.size:
            return b""
        skip = offset - self._start
        if skip < 0 or skip + length > len(self._window):
            self._move(offset, max(length, HEAD))
            skip = offset - self._start
        return self._window[skip : skip + length]

    def reader(self) -> IO[bytes]:
        """A stream over the content, from its beginning."""
        return io.BufferedReader(_Reader(self), HEAD)

    def _move(self, offset: int, length: int) -> None:
        """Have ``length`` bytes from ``offset`` in the window."""
        if offset < self._start:
            self.stream = self._begin()
            self._start, self._window = 0, b""
        while self._start + len(self._window) <= offset:
            if self._start > _LONGEST:
                raise UnreadableError(f"content that expands beyond {_LONGEST >> 30} GiB")
            self._start += len(self._window)
            self._window = _read(self.stream, HEAD)
            if not self._window:
                self._start = offset
                return
        self._window = self._window[offset - self._start :]
        self._window += _read(self.stream, length - len(self._window))
        self._start = offset


class SeekableContent(Content):
    """A view of a stream with random access: a file."""

    def __init__(self, stream: IO[bytes]) -> None:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        super().__init__(lambda: stream, size)

    @cached_property
    def tail(self) -> bytes:
        """The last bytes, more than the end record of a zip archive can have."""
        size = self.size or 0
        return super().tail or self.at(max(0, size - _END_OF_ZIP), _END_OF_ZIP)

    def _move(self, offset: int, length: int) -> None:
        self.stream.seek(offset)
        self._start, self._window = offset, _read(self.stream, length)


class _Reader(io.RawIOBase):
    def __init__(self, content: Content) -> None:
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._content.at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _read(stream: IO[bytes], length: int) -> bytes:
    """As much as there is, however little a single read of the stream gives."""
    parts = []
    while length > 0 and (part := stream.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
