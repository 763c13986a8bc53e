"""Bytes on the disk, named by their digest: objects are placed and read here, nowhere else."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from tracklayer.errors import StoreError
from tracklayer.store.disk import Disk, explained, place, write_all
from tracklayer.store.keys import Keys
from tracklayer.store.locks import shared
from tracklayer.store.manifest import Blob, hash_file
from tracklayer.store.seal import HEADER, Cipher, Damage, Header, sealed_size, unwrap
from tracklayer.store.stream import SealedReader, check_size, decrypt

_FICLONE = 0x40049409  # linux/fs.h
_BUFFER = 64 << 10


class Objects:
    """Content that never changes: ``sealed/ab/cdef...`` encrypted, ``objects/ab/cdef...`` plain.

    Both are named by the SHA-256 of the content. A new object is written to a temporary file of
    the same file system, made durable and then renamed, so that an object is either whole or not
    there, also after a power cut.
    """

    def __init__(self, disk: Disk, keys: Keys | None) -> None:
        self.disk, self.keys = disk, keys
        self.root = disk.root

    def sealed(self, digest: str) -> Path:
        """Where an encrypted object lies, or would lie."""
        return self._path("sealed", digest)

    def plain(self, digest: str) -> Path:
        """Where a plain object lies, or would lie."""
        return self._path("objects", digest)

    def paths(self) -> Iterator[Path]:
        """All objects, encrypted and plain."""
        for kind in ("sealed", "objects"):
            yield from sorted(self.root.glob(f"{kind}/??/*"))

    def has(self, blob: Blob) -> bool:
        """Whether the object is there with its size; its content is not read."""
        return _is(self.sealed(blob.digest), sealed_size(blob.size)) or _is(
            self.plain(blob.digest), blob.size
        )

    def exists(self, digest: str) -> bool:
        """Whether the object is there, whatever is in it."""
        return self.sealed(digest).exists() or self.plain(digest).exists()

    def commit(self, fresh: Path, descriptor: int, blob: Blob, cipher: Cipher | None) -> None:
        """Make a written file durable and an object; one that is there already, and can be read,
        stays.

        The key is asked for as late as here, under a lock that whoever makes a new key waits for:
        after that no file appears under an older one.

        :raises StoreError: what is there needs a key that is missing; there is no current key.
        """
        if cipher is None:
            if _is(self.plain(blob.digest), blob.size):
                fresh.unlink()
                return
            os.fchmod(descriptor, 0o400)
            os.fsync(descriptor)
            place(fresh, self.plain(blob.digest))
            return
        assert self.keys is not None  # a cipher is made where there are keys
        if self._readable(blob):
            fresh.unlink()
        else:
            with shared(self.root / "commit.lock"):
                digest = bytes.fromhex(blob.digest.removeprefix("sha256:"))
                slot = cipher.wrap(*self.keys.current, digest, blob.size)
                write_all(descriptor, cipher.header(slot), 0)
                os.fsync(descriptor)
                place(fresh, self.sealed(blob.digest))
        self.plain(blob.digest).unlink(missing_ok=True)

    def open(self, blob: Blob) -> BinaryIO:
        """The content of an object, seekable; of an encrypted one only what is read is decrypted.

        :raises StoreError: it is missing or damaged, here or when it is read; its key is missing.
            A plain object is not verified.
        """
        with explained(self.root), self._opened(blob) as (descriptor, path):
            kept = os.dup(descriptor)
            if path == self.plain(blob.digest):
                return os.fdopen(kept, "rb")
            try:
                cipher = self._unlock(kept, blob)
            except BaseException:
                os.close(kept)
                raise
        raw = SealedReader(kept, cipher, blob.size, lambda damage: self._damaged(path, damage))
        return cast(BinaryIO, io.BufferedReader(raw, _BUFFER))

    def read(self, blob: Blob, into: Path, *, mode: int) -> None:
        """Write a verified copy of an object to the new file ``into``.

        A plain object is copied, or cloned where the file system can (FICLONE: shared blocks):
        through a hard link whoever owns the copy could change the object itself.

        :raises StoreError: the object is missing or damaged, its key is missing, the disk is full.
        """
        with (
            explained(self.root),
            into.open("xb", buffering=0) as new,
            self._opened(blob) as (descriptor, path),
        ):
            if path == self.plain(blob.digest):
                _copy(descriptor, new)
                if hash_file(into).digest != blob.digest:
                    raise self._damaged(path, Damage("its content is another"))
            else:
                decrypt(descriptor, new.fileno(), self._unlock(descriptor, blob), blob.size)
            os.fchmod(new.fileno(), mode)

    def verify(self) -> Iterator[str]:
        """Read every object; a sentence for each that is not what its name says."""
        for path in self.paths():
            digest = digest_at(path)
            try:
                if path == self.plain(digest):
                    if hash_file(path).digest != digest:
                        yield f"{digest} is damaged: its content is another: {path}"
                    continue
                with path.open("rb", buffering=0) as stream:
                    size = Header.parse(stream.read(HEADER) or b"").newest[0].size
                    blob = Blob(digest=digest, size=size)
                    decrypt(stream.fileno(), None, self._unlock(stream.fileno(), blob), size)
            except FileNotFoundError:
                continue  # sealed or collected meanwhile
            except Damage as damage:
                yield f"{digest} is damaged: {damage}: {path}"
            except StoreError as error:
                yield f"{digest} cannot be read: {error.message}"

    @contextmanager
    def _opened(self, blob: Blob) -> Iterator[tuple[int, Path]]:
        """An object's file; what is damaged in it becomes an error that says where."""
        kinds = [self.sealed, self.plain]
        if self.keys is None:
            kinds.reverse()
        for kind in (*kinds, kinds[0]):  # a plain one may be sealed meanwhile
            path = kind(blob.digest)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                yield descriptor, path
            except Damage as damage:
                raise self._damaged(path, damage) from damage
            finally:
                os.close(descriptor)
            return
        raise StoreError(f"{blob.digest} is not in the store {self.root}")

    def _readable(self, blob: Blob) -> bool:
        """Whether the encrypted object is there, as far as its header and its size say.

        :raises StoreError: its key is missing.
        """
        try:
            descriptor = os.open(self.sealed(blob.digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            self._unlock(descriptor, blob)
            return True
        except Damage:
            return False
        finally:
            os.close(descriptor)

    def _unlock(self, descriptor: int, blob: Blob) -> Cipher:
        """Read the header of an encrypted object.

        :raises Damage: it is not that of this object.
        :raises StoreError: the key is missing.
        """
        header = Header.parse(os.pread(descriptor, HEADER, 0))
        try:
            cipher, slot = unwrap(header, self._key)
        except StoreError:
            # The keys may have been rotated between the header and the key.
            again = Header.parse(os.pread(descriptor, HEADER, 0))
            if again == header:
                raise
            cipher, slot = unwrap(again, self._key)
        check_size(descriptor, slot)
        if f"sha256:{slot.digest.hex()}" != blob.digest or slot.size != blob.size:
            raise Damage("it is another object")
        return cipher

    def _key(self, key_id: str) -> bytes:
        if self.keys is None:
            raise StoreError(
                f"the store {self.root} is encrypted with the key {key_id}, and no keys are named",
                hint="Name the place of its keys: the setting store_key (TRACKLAYER_STORE_KEY).",
            )
        return self.keys.get(key_id)

    def _damaged(self, path: Path, damage: Damage) -> StoreError:
        return StoreError(
            f"{digest_at(path)} in the store {self.root} is damaged: {damage}",
            hint=f"Remove {path} and fetch or make its content again.",
        )

    def _path(self, kind: str, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return Path(f"{self.root}/{kind}/{name[:2]}/{name[2:]}")


def digest_at(path: Path) -> str:
    """The digest that an object's path says."""
    return f"sha256:{path.parent.name}{path.name}"


def digest_of(data: bytes) -> str:
    """``sha256:<hex>`` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _is(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _copy(descriptor: int, new: BinaryIO) -> None:
    try:
        fcntl.ioctl(new, _FICLONE, descriptor)
    except OSError:
        with os.fdopen(os.dup(descriptor), "rb") as old:
            shutil.copyfileobj(old, new, 1 << 20)
