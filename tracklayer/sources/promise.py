"""What a source says of a file before it comes, and whether what came is that."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Protocol

from tracklayer.errors import SourceError
from tracklayer.sources.progress import amount
from tracklayer.sources.protocol import Remote

_KINDS = ("", "sha256", "git-sha1", "md5")


class Wrong(Exception):
    """What came is not what was promised; once more could be better, twice could not."""


class Hash(Protocol):
    """As the hashes of :mod:`hashlib` are."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Go on with some bytes."""

    def hexdigest(self) -> str:
        """What they come to."""


class Promise:
    """Size and digest of a remote file, as far as its source knows them.

    :raises SourceError: a digest that cannot be checked.
    """

    def __init__(self, remote: Remote) -> None:
        self.size, self._digest = remote.size, remote.digest or ""
        self.kind, _, self._hex = self._digest.partition(":")
        if self.kind not in _KINDS or (self.kind == "git-sha1" and self.size is None):
            raise SourceError(f"{remote.path}: a digest of the kind {self.kind} cannot be checked")

    def hash(self) -> Hash | None:
        """A new hash of the promised kind."""
        if self.kind == "git-sha1":  # the name of a blob, as git hash-object gives it
            return hashlib.sha1(b"blob %d\0" % (self.size or 0), usedforsecurity=False)
        if self.kind == "md5":
            return hashlib.md5(usedforsecurity=False)
        return hashlib.sha256() if self.kind else None

    def check_digest(self, found: str) -> None:
        """:raises Wrong: the hash came to something else."""
        if self.kind and found != self._hex:
            raise Wrong(f"its digest is {self.kind}:{found}, expected {self._digest}")

    def check_size(self, found: int | None) -> None:
        """:raises Wrong: it has another size."""
        if None not in (self.size, found) and found != self.size:
            raise Wrong(f"it has {found} bytes, expected {self.size}")


def check_room(what: str, size: int, store: Path) -> None:
    """Whether so many bytes have room in the store.

    :raises SourceError: they have not.
    """
    free = shutil.disk_usage(store).free
    if size > free:
        raise SourceError(
            f"{what} has {amount(size)}, and {amount(free)} are free on the disk of the store",
            hint="Free some space, or move the store.",
        )
