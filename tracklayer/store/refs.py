"""Names for what is stored: what has a name is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pydantic import BaseModel, Field

from tracklayer.errors import StoreError
from tracklayer.store.manifest import DIGEST, Blob

SOURCES = "sources/"
"""Names that begin so are a cache: they may be dropped, oldest use first."""

_END = "@"


class Tree(BaseModel):
    """A manifest, by its digest."""

    manifest: str = Field(pattern=DIGEST)


@dataclass(frozen=True)
class Note:
    """What is written under a name: the digest of a tree, or a single object.

    ``changed``: seconds since the epoch; for a source, its last use.
    """

    name: str
    target: str | Blob
    changed: float


class Refs:
    """``refs/<name>@``: small files of JSON; a name is a path such as ``runs/digits/7/train``.

    An ``@`` or ``%`` of a name is escaped as in a URL, so that ``a`` and ``a/b`` can both be names.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "refs"

    def path(self, name: str) -> Path:
        """Where a name is written.

        :raises StoreError: it is not a name.
        """
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise StoreError(f"{name!r} is not a name for something stored: write a/b/c")
        return self._folder.joinpath(*map(_escape, parts[:-1]), _escape(parts[-1]) + _END)

    def document(self, target: str | Blob) -> bytes:
        """What is written for a target."""
        if isinstance(target, str):
            return json.dumps({"manifest": target}).encode()
        return json.dumps({"digest": target.digest, "size": target.size}).encode()

    def read(self, name: str) -> Note | None:
        """What a name means.

        :raises StoreError: its file is damaged.
        """
        path = self.path(name)
        try:
            raw, changed = path.read_bytes(), path.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            record = json.loads(raw)
            tree = Tree(**record) if "manifest" in record else None
            target = tree.manifest if tree else Blob(**record)
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged", hint=f"Remove {path}.") from error
        return Note(name, target, changed)

    def used(self, name: str) -> None:
        """Note that it was used now."""
        os.utime(self.path(name))

    def drop(self, name: str) -> None:
        """Forget a name, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove the folders in which no name is left, while nobody gives one."""
        for folder in sorted(self._folder.rglob("*/"), reverse=True):
            with suppress(OSError):
                folder.rmdir()

    def names(self, prefix: str = "") -> list[str]:
        """All names that begin so, in order."""
        start = self._folder.joinpath(*map(_escape, prefix.split("/")[:-1]))
        found = (path.relative_to(self._folder).as_posix() for path in start.rglob(f"*{_END}"))
        names = (unquote(path.removesuffix(_END)) for path in found)
        return sorted(name for name in names if name.startswith(prefix))

    def notes(self, prefix: str = "") -> Iterator[Note]:
        """What those names mean.

        :raises StoreError: the file of one is damaged.
        """
        for name in self.names(prefix):
            if note := self.read(name):  # not dropped meanwhile
                yield note


def _escape(part: str) -> str:
    return part.replace("%", "%25").replace("@", "%40")
