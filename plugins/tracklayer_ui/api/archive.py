"""An uploaded project folder, unpacked in memory: a tar (plain or gzip) or a zip.

Nothing in an archive is believed: names are checked when the files are saved, only plain files
are taken, and what comes out of the decompression is counted while it comes.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

from tracklayer.errors import ProjectError
from tracklayer.projects.files import MAX_FILE, MAX_FILES, MAX_TOTAL, MIB, Entry, entry_from

_Member = tuple[str, bytes, bool]  # name, content, whether it is a program

MAX_BODY = MAX_TOTAL + 32 * MIB
"""Bytes of an archive: the files and what a tar adds to 10,000 of them."""


class ArchiveError(ProjectError):
    """The upload is no archive, or has something in it that a project may not have."""


class TooLargeError(ArchiveError):
    """The upload or what it unpacks to is too large."""


def unpack(body: bytes) -> list[Entry]:
    """Every file in an archive; their paths are as they were sent.

    :raises TooLargeError: more or larger files than a project may have.
    :raises ArchiveError: it is none, is damaged, or has an entry that is neither file nor folder.
    """
    files: dict[str, Entry] = {}
    total = 0
    try:
        for name, content, executable in _members(body):
            path = name.removeprefix("./")
            if path in files:
                raise ArchiveError(f"The archive has {path!r} twice.")
            total += len(content)
            if len(files) >= MAX_FILES or total > MAX_TOTAL:
                limit = f"{MAX_FILES} files and {MAX_TOTAL // MIB} MiB"
                raise TooLargeError(f"The archive unpacks to more than {limit}.")
            files[path] = entry_from(path, content, executable=executable)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise ArchiveError(f"The archive is damaged: {error}.", hint="Send it again.") from None
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, a rare method
        raise ArchiveError(f"The archive cannot be read: {error}.") from None
    return list(files.values())


def _members(body: bytes) -> Iterator[_Member]:
    stream = io.BytesIO(body)
    if zipfile.is_zipfile(stream):
        return _from_zip(stream)
    stream.seek(0)
    if body.startswith(b"\x1f\x8b"):
        return _from_tar(gzip.GzipFile(fileobj=stream))
    if tarfile.is_tarfile(stream):
        stream.seek(0)
        return _from_tar(stream)
    raise ArchiveError(
        "The body is neither a tar, a tar.gz nor a zip.",
        hint="Send one of the project's folder, with tracklayer.yaml at its top.",
    )


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def _from_tar(stream: _Readable) -> Iterator[_Member]:
    with tarfile.open(fileobj=_Counted(stream), mode="r|") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise ArchiveError(f"{member.name!r} in the archive is no plain file.")
            _check_size(member.name, member.size)
            content = archive.extractfile(member)
            assert content is not None
            yield member.name, content.read(), bool(member.mode & stat.S_IXUSR)


def _from_zip(stream: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            mode = member.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ArchiveError(f"{member.filename!r} in the archive is no plain file.")
            with archive.open(member) as content:
                # The size that the archive tells may be a lie: read one byte more than allowed.
                data = content.read(MAX_FILE + 1)
            _check_size(member.filename, len(data))
            yield member.filename, data, bool(mode & stat.S_IXUSR)


def _check_size(name: str, size: int) -> None:
    if size > MAX_FILE:
        message = f"{name!r} in the archive has more than {MAX_FILE // MIB} MiB."
        raise TooLargeError(message, hint="Name data under `sources` instead.")


class _Counted(io.RawIOBase):
    """A stream that ends with an error after ``MAX_BODY`` bytes, whatever asks for them."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self._left = MAX_BODY

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        data = self._stream.read(wanted)
        self._left -= len(data)
        if self._left < 0:
            raise TooLargeError(f"The archive unpacks to more than {MAX_BODY // MIB} MiB.")
        return data
