"""Archives into the store: every member is judged before its first byte is stored."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import time
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO, Self

from tracklayer.errors import SourceError
from tracklayer.sources.progress import amount
from tracklayer.sources.protocol import Progress
from tracklayer.store import Blob, File, Store

_READ = 1 << 20
_HEADER = 1 << 20  # bytes of a tar's extended header: it is read into memory
_DIRECTORY = 64 << 20  # bytes of a zip's list of members, which is too
_ENCRYPTED = 0x1  # APPNOTE.TXT, 4.4.4
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)
_KINDS = "A zip or a tar (plain, .gz, .bz2 or .xz) can be unpacked."


@dataclass(frozen=True)
class Bounds:
    """What an archive may become: members, bytes, and times its own size where that is more than
    ``small`` bytes."""

    members: int = 200_000
    size: int = 1 << 40
    ratio: int = 200
    small: int = 64 << 20


def unpack(
    blob: Blob,
    name: str,
    store: Store,
    report: Progress = lambda _line: None,
    bounds: Bounds = Bounds(),
) -> list[File]:
    """The members of a zip or a tar that is in the store: out of the store, into the store.

    :param name: where the archive would lie in the tree: its members land in that folder.
    :raises SourceError: it is none, it is damaged or encrypted, or holds what must not be unpacked.
    :raises StoreError: the store is full or damaged.
    """
    unpacking = _Unpacking(name, store, blob.size, report, bounds)
    with store.open(blob) as stream:
        try:
            if zipfile.is_zipfile(archive := _Archive(stream)):
                unpacking.zip(archive)
            else:
                stream.seek(0)
                unpacking.tar(stream)
        except _DAMAGE as error:
            what = f"is damaged at {unpacking.at}" if unpacking.at else "is no archive, or damaged"
            raise SourceError(
                f"{name} {what}: {error or type(error).__name__}", hint=_KINDS
            ) from error
    if not unpacking.files:
        raise SourceError(f"{name} is an empty archive", hint=_KINDS)
    return list(unpacking.files.values())


class _Unpacking:
    """One archive: what is out of it, and how much may still come."""

    def __init__(
        self, name: str, store: Store, packed: int, report: Progress, bounds: Bounds
    ) -> None:
        self.files: dict[str, File] = {}  # by the name as a careless file system has it
        self.at = ""
        self._name, self._store, self._report, self._bounds = name, store, report, bounds
        self._most = min(bounds.size, max(bounds.small, packed * bounds.ratio))
        self._folders: dict[str, str] = {}
        self._members = self._size = 0
        self._said = time.monotonic()

    def zip(self, stream: _Archive) -> None:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                # Not filename, from which what follows a zero byte was cut.
                path = self._judge(member.orig_filename)
                mode = member.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self._refused("is a link or a device")
                if member.is_dir():
                    continue
                if member.flag_bits & _ENCRYPTED:
                    raise self._refused("is encrypted")
                if member.compress_type not in _METHODS:
                    raise self._refused(f"is compressed by method {member.compress_type}")
                with archive.open(member) as content:
                    self._keep(path, content, executable=bool(mode & stat.S_IXUSR))

    def tar(self, stream: BinaryIO) -> None:
        plain = _decompressed(stream)
        with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                path = self._judge(member.name)
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise self._refused("is a link, a device or a sparse file")
                if member.isdir():
                    continue
                content = archive.extractfile(member)
                assert content is not None  # it is a plain file
                with content:
                    self._keep(path, content, executable=bool(member.mode & stat.S_IXUSR))
        self.at = "its end"
        while data := plain.read(_READ):  # to where the checksum is
            self._count(len(data))

    def _judge(self, member: str) -> str:
        """The path of a member in the tree, if it may be there."""
        self.at = repr(member)
        self._members += 1
        if self._members > self._bounds.members:
            raise self._refused(f"is one of more than {self._bounds.members} members")
        path = PurePosixPath(member)
        if member.startswith("/") or re.match(r"[A-Za-z]:", member):
            raise self._refused("has an absolute name")
        if ".." in path.parts:
            raise self._refused("leads out of its folder")
        if not member or re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", member):
            raise self._refused("has a name with a backslash, a control character or no UTF-8")
        if any(len(part.encode()) > 255 for part in path.parts):
            raise self._refused("has a name that is too long")
        return str(path)

    def _keep(self, path: str, content: IO[bytes], *, executable: bool) -> None:
        key = _folded(path)
        parents = [_folded(str(parent)) for parent in PurePosixPath(path).parents][:-1]
        for taken in [key, *parents]:
            if other := self.files.get(taken):
                raise self._refused(f"has the name of another member, {other.path!r}")
        if key in self._folders:
            raise self._refused(f"has the name of a folder, {self._folders[key]!r}")
        self._folders |= dict.fromkeys(parents, path)
        with self._store.create() as writer:
            while data := content.read(_READ):
                self._count(len(data))
                writer.write(data)
            blob = writer.commit()
        lies = str(PurePosixPath(self._name).parent / path)
        self.files[key] = File(path=lies, executable=executable, **blob.model_dump())

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._most:
            raise self._refused(f"makes it larger than {amount(self._most)} unpacked: a bomb?")
        if time.monotonic() > self._said + 1:
            self._said = time.monotonic()
            self._report(f"unpacking {self._name}: {amount(self._size)}, {len(self.files)} files")

    def _refused(self, why: str) -> SourceError:
        return SourceError(
            f"{self._name} is not unpacked: {self.at} {why}",
            hint="Nothing of it was kept. Ask who made it for an archive of plain files.",
        )


def _decompressed(stream: BinaryIO) -> BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile:
    """The stream, or what it is a compressed form of."""
    begin = stream.read(6)
    stream.seek(0)
    if begin.startswith(b"\x1f\x8b"):
        return gzip.open(stream)
    if begin.startswith(b"BZh"):
        return bz2.open(stream)
    if begin == b"\xfd7zXZ\0":
        return lzma.open(stream)
    return stream


class _Member(tarfile.TarInfo):
    """A header of a tar whose extensions fit into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in tarfile.SUPPORTED_TYPES and member.size > _HEADER:
            raise tarfile.ReadError(f"an extended header of {member.size} bytes")
        return member


class _Archive(io.BufferedIOBase):
    """What zipfile reads; it reads the list of members at once, so that must fit into memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise zipfile.BadZipFile(f"a list of members of {size} bytes")
        return self._stream.read(-1 if size is None else size)

    def seek(self, to: int, whence: int = 0, /) -> int:
        try:
            return self._stream.seek(to, whence)
        except ValueError as error:  # before its start; zipfile knows what files say then
            raise OSError(str(error)) from error

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _folded(path: str) -> str:
    """The name by which a file system that ignores case and composition finds a file."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())
