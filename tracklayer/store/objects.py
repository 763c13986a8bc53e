"""Bytes on the disk, named by their digest: objects are written and read here, nowhere else."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracklayer.errors import StoreError
from tracklayer.store.manifest import Blob, hash_file

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_STALE = 24 * 3600.0  # seconds after which a temporary file has no living owner
_FICLONE = 0x40049409  # linux/fs.h


class Objects:
    """Content under ``<root>/objects/ab/cdef...``: read-only files that never change.

    A new object is written to a temporary file of the same file system, made durable and then
    renamed, so that an object is either whole or not there, also after a power cut.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Where an object lies, or would lie."""
        name = digest.removeprefix("sha256:")
        return self.root / "objects" / name[:2] / name[2:]

    def has(self, blob: Blob) -> bool:
        """Whether the object is there with its size; its content is not read."""
        try:
            return self.path(blob.digest).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def write(self, source: Path, *, move: bool = False) -> Blob:
        """Store a file. ``move`` gives the file itself away, which saves a copy of a download.

        :raises StoreError: the file changed meanwhile, the disk is full, the store is not writable.
        """
        with explained(self.root):
            blob = hash_file(source)
            if self.has(blob):
                return blob
            with self.scratch() as folder:
                fresh = folder / "object"
                if move:
                    source.rename(fresh)
                else:
                    shutil.copyfile(source, fresh)
                    if hash_file(fresh) != blob:
                        raise StoreError(f"{source} changed while it was being stored")
                place(fresh, self.path(blob.digest))
            return blob

    def read(self, blob: Blob, into: Path, *, mode: int) -> None:
        """Write a verified copy of an object to the new file ``into``.

        A copy, or a clone that shares blocks where the file system can (FICLONE): through a hard
        link whoever owns the copy could change the object itself.

        :raises StoreError: the object is missing or damaged, the disk is full.
        """
        with explained(self.root):
            source = self.path(blob.digest)
            if not source.exists():
                raise StoreError(f"{blob.digest} is not in the store {self.root}")
            with source.open("rb") as old, into.open("xb") as new:
                try:
                    fcntl.ioctl(new, _FICLONE, old.fileno())
                except OSError:
                    shutil.copyfileobj(old, new, 1 << 20)
            if hash_file(into) != Blob(digest=blob.digest, size=blob.size):
                raise StoreError(
                    f"{blob.digest} in the store {self.root} is damaged",
                    hint=f"Remove {source} and fetch or make its content again.",
                )
            into.chmod(mode)

    def damaged(self) -> Iterator[str]:
        """Read every object; the digests of those whose content is another."""
        for path in sorted(self.root.glob("objects/??/*")):
            digest = f"sha256:{path.parent.name}{path.name}"
            if hash_file(path).digest != digest:
                yield digest

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of one's own on the file system of the store, gone at the end."""
        with explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = self.root / "tmp"
            temporary.mkdir(exist_ok=True)
            for left in temporary.iterdir():
                with suppress(FileNotFoundError):
                    if left.stat().st_mtime < time.time() - _STALE:
                        shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=temporary))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def place(fresh: Path, target: Path) -> None:
    """Make a file durable and read-only, then give it its name, in one step for every reader."""
    with fresh.open("rb") as stream:
        os.fsync(stream)
    fresh.chmod(0o400)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def digest_of(data: bytes) -> str:
    """``sha256:<hex>`` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what the file system says into a :class:`StoreError` with advice."""
    try:
        yield
    except OSError as error:
        where = error.filename or root
        hint = None
        if error.errno in _FULL:
            hint = f"Free some space on the file system of {root}."
        elif error.errno in _REFUSED:
            hint = f"The user {os.getuid()} must be able to read and write {root}."
        raise StoreError(f"{where}: {error.strerror}", hint=hint) from error
