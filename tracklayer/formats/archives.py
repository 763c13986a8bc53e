"""Archives, with what is in them.

An archive that stays packed endangers nobody but those whose loader takes it as it is, which are
PyTorch's, NumPy's, Keras's and skops's. What else is inside is told all the same, by its beginning.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

from tracklayer.formats.content import Content, Format, SeekableContent, UnreadableError, shown

Look = Callable[[Content, str], Format]
"""Tells what is inside, given its content and its name."""

_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, LookupError, ArithmeticError, MemoryError),
)
"""What the libraries raise for archives that are damaged, encrypted or of an unknown method."""

_NESTED_ZIP = 64 << 20
"""Size up to which a zip archive inside something else is looked into."""
_NESTED_TAR = 256 << 20
"""Bytes of a tar inside something else that are looked into, members that begin there."""
_NESTED_MEMBER = 1 << 20
"""Bytes of such a member that are looked at."""


def zip_archive(content: Content, look: Look) -> Format | None:
    """A zip archive, also one behind something else: it is found from its end."""
    first = content.head.startswith((b"PK\3\4", b"PK\5\6"))
    if not first and not _has_directory(content):
        return None
    stream = content.stream if isinstance(content, SeekableContent) else _in_memory(content)
    try:
        with zipfile.ZipFile(stream) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            infos = [info for info in infos if not info.is_dir()]
            found = _worst(_zip_kind(archive, infos), _zip_members(archive, infos), look)
    except _DAMAGE:
        found = _damaged("zip")
    return found if first else Format(f"{found.name}, behind another", found.risk or "unknown")


def tar_archive(content: Content, look: Look) -> Format | None:
    """A tar archive, of any kind: all have the same checksum in the first block."""
    block = content.head[:512]
    if not re.fullmatch(rb"[ 0-7\0]{8}", block[148:156]):
        return None
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return None
    return _worst(Format("tar"), _tar_members(content), look)


def _has_directory(content: Content) -> bool:
    """Does some end record of a zip archive in the tail lead to a directory?"""
    tail, size = content.tail, content.size or 0
    for match in re.finditer(b"PK\5\6", tail):
        place = size - len(tail) + match.start()
        length, offset = (
            int.from_bytes(tail[match.start() + at : match.start() + at + 4], "little")
            for at in (12, 16)
        )
        if tail[max(0, match.start() - 20) : match.start()].startswith(b"PK\6\7"):  # zip64
            return True
        if any(at >= 0 and content.at(at, 4) == b"PK\1\2" for at in (place - length, offset)):
            return True
    return False


def _in_memory(content: Content) -> IO[bytes]:
    data = content.reader().read(_NESTED_ZIP)
    if len(data) == _NESTED_ZIP:
        raise UnreadableError("zip inside something else, too large to be looked into")
    return io.BytesIO(data)


def _zip_kind(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> Format:
    """What an archive is by the names that are in it. PyTorch's reader ignores their case."""
    names = {info.filename.lower(): info for info in infos}
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return Format("pickle (TorchScript)", "pickle")
    if "data.pkl" in last:
        return Format("pickle (torch.save)", "pickle")
    if "archive_format" in last:
        return Format("pickle (torch.export)", "pickle")
    if "class_name" in _json(archive, names.get("config.json")):
        # Loading one imports what its configuration names (CVE-2025-1550, CVE-2025-9906).
        return Format("Keras model", "code")
    if "_skops_version" in _json(archive, names.get("schema.json")):
        return Format("skops")
    if "[content_types].xml" in last:
        macros = "vbaproject.bin" in last
        return (
            Format("Office document with macros", "code") if macros else Format("Office document")
        )
    if names and all(name.endswith(".npy") for name in names):
        return Format("npz")
    return Format("zip")


def _json(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> dict[str, object]:
    """The keys of a JSON document in an archive; none if it is none."""
    if info is None:
        return {}
    with archive.open(info) as stream:
        data = stream.read(_NESTED_ZIP)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _zip_members(
    archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]
) -> Iterator[tuple[str, Content]]:
    for info in infos:
        yield info.filename, Content(partial(archive.open, info), info.file_size)


def _tar_members(content: Content) -> Iterator[tuple[str, Content]]:
    if isinstance(content, SeekableContent):
        content.stream.seek(0)
        with tarfile.open(fileobj=content.stream, mode="r:") as archive:
            for member in archive:
                if stream := archive.extractfile(member) if member.isreg() else None:
                    yield member.name, SeekableContent(stream)
        return
    with tarfile.open(fileobj=content.reader(), mode="r|") as archive:
        for member in archive:
            if member.offset > _NESTED_TAR:
                return
            if stream := archive.extractfile(member) if member.isreg() else None:
                data = stream.read(_NESTED_MEMBER)
                yield member.name, Content(partial(io.BytesIO, data), member.size)


def _worst(kind: Format, members: Iterator[tuple[str, Content]], look: Look) -> Format:
    """The archive itself, or the worst that is in it."""
    found = kind
    try:
        while found.risk != "pickle" and (member := next(members, None)):
            inner = look(member[1], member[0])
            if kind.name == "skops" and inner.risk == "unknown":  # it gives bytes as bytes
                continue
            if inner.worse_than(found):
                found = Format(f"{inner.name} in {kind.name} ({shown(member[0])})", inner.risk)
    except _DAMAGE:
        return _damaged(kind.name)
    return found


def _damaged(kind: str) -> Format:
    """Another reader may see more in it, so it is taken for the worst."""
    return Format(f"{kind}, damaged or encrypted", "pickle")
