"""Compressed files, with the beginning of what is inside."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from tracklayer.formats.archives import Look
from tracklayer.formats.content import HEAD, Content, Format

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_DAMAGE = (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, MemoryError)


def compressed(content: Content, name: str, look: Look) -> Format | None:
    """What a compressed file is and holds; None if it is none."""
    for kind, (mark, expand) in _KINDS.items():
        if re.match(mark, content.head, re.DOTALL):
            return _expanded(content, kind, expand, PurePosixPath(name).stem, look)
    return None


def _expanded(
    content: Content, kind: str, expand: Callable[[IO[bytes]], IO[bytes]], name: str, look: Look
) -> Format | None:
    try:
        found = look(Content(lambda: expand(content.reader())), name)
    except _DAMAGE:
        # The mark of zlib is so short that texts have it too.
        return Format(f"{kind}, damaged", "unknown") if kind != "zlib" else None
    return Format(f"{found.name} in {kind}", found.risk)


class _Zlib(io.RawIOBase):
    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._inside = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        while not self._inside.eof:
            data = self._inside.unconsumed_tail or self._packed.read(HEAD)
            if not data:
                raise EOFError("the stream ends early")
            if found := self._inside.decompress(data, len(view)):
                view[: len(found)] = found
                return len(found)
        return 0


def _gzip(packed: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(fileobj=packed), HEAD)


def _zlib(packed: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(_Zlib(packed), HEAD)


def _arrow(kind: str, packed: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    stream: IO[bytes] = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), kind)
    return stream


_KINDS: dict[str, tuple[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    "gzip": (rb"\x1f\x8b\x08", _gzip),
    "bzip2": (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", bz2.BZ2File),
    "xz": (rb"\xfd7zXZ\0", lzma.LZMAFile),
    "lzma": (rb"\x5d\0\0..(\xff{8}|.{5}\0{3})", lzma.LZMAFile),
    "zstd": (rb"\x28\xb5\x2f\xfd", partial(_arrow, "zstd")),
    "lz4": (rb"\x04\x22\x4d\x18", partial(_arrow, "lz4")),
    "zlib": (rb"x[\x01\x5e\x9c\xda]", _zlib),
}
"""Name -> how such a file begins, and what expands it."""
