"""An object that is being received in any order, and that outlives its process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Condition
from typing import Protocol, Self

from tracklayer.errors import StoreError
from tracklayer.store import seal
from tracklayer.store.disk import blank, explained, read_all, write_all
from tracklayer.store.locks import acquire
from tracklayer.store.manifest import Blob
from tracklayer.store.objects import Objects
from tracklayer.store.seal import CHUNK, FRAME, UNKNOWN, Bytes, Cipher, Damage
from tracklayer.store.stream import read_chunk, unlock

_WAIT = 600.0  # seconds for another process that receives the same
_AHEAD = (32 << 20) // CHUNK  # chunks that may be asked for before they can be hashed
_KEPT = 3 * _AHEAD  # chunks that wait in memory to be hashed
_AT_ONCE = (2 << 20) // CHUNK
_PATIENCE = 1.0  # seconds


class Hash(Protocol):
    """As the hashes of :mod:`hashlib` are."""

    def update(self, data: Bytes, /) -> None:
        """Go on with some bytes."""


class Draft:
    """Content of a known size that arrives in chunks of :data:`CHUNK` bytes, the last one shorter.

    ::

        drafts/<sha256 of the name>/data      the object to be: encrypted from its first byte
        drafts/<sha256 of the name>/arrived   a byte a chunk

    A context manager. Left without :meth:`commit` or :meth:`discard`, what arrived is there for
    the next draft of the same name and size, also after ``kill -9``. After a power cut what was
    not yet on the disk counts as missing, by its own tag; without encryption there is none, and
    the digest of the whole tells. One that cannot be read any more, because its key is gone,
    begins anew. Who has it holds the lock of ``data``; others wait.

    :param also: hashes of the caller, fed like the SHA-256 in the order of the content; to be read
        after :meth:`commit`.
    """

    CHUNK = CHUNK

    def __init__(self, objects: Objects, name: str, size: int, also: Sequence[Hash] = ()) -> None:
        self._objects, self._name, self._size = objects, name, size
        mark = hashlib.sha256(name.encode()).hexdigest()
        self._folder = objects.root / "drafts" / mark
        self._sha = hashlib.sha256()
        self._hashes: list[Hash] = [self._sha, *also]
        self._count = seal.chunks(size)
        self._arrived = bytearray(self._count)
        self._hashed = 0
        self._spare: list[memoryview] = []
        self._cipher: Cipher | None = None
        self._leaving = self._following = False
        self._writing: set[int] = set()
        self._waiting: dict[int, bytes] = {}
        self._turn = Condition()
        self._chunk = blank(min(CHUNK, size))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._objects.disk.session())
            with explained(self._objects.root):
                self._objects.disk.folder("drafts")
                self._data = self._lock(stack)
                self._marks = self._open(stack, "arrived")
                if not self._resume():
                    self._begin()
            self._pool = ThreadPoolExecutor(1)
            stack.callback(self._pool.shutdown, cancel_futures=True)
            stack.callback(self._leave)
            if not self._size:
                self.write(0, b"")
            self._follow()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def missing(self) -> list[int]:
        """The indices of the chunks that are not there."""
        return [index for index, there in enumerate(self._arrived) if not there]

    def pace(self, index: int) -> None:
        """To be called before a chunk is asked for: whoever is far ahead of hashing, which is what
        everything waits for in the end, waits a little. Not for long: the chunk that is next may
        be nobody's yet."""
        with self._turn:
            self._turn.wait_for(lambda: index < self._hashed + _AHEAD, _PATIENCE)

    def write(self, index: int, data: Bytes) -> None:
        """Put a chunk in its place; one that is there already, or on its way, stays. For any number
        of threads.

        :raises StoreError: it is not a chunk of this content, the disk is full.
        """
        expected = seal.length(index, self._size) if 0 <= index < self._count else -1
        if len(data) != expected:
            raise StoreError(
                f"{self._name}: {len(data)} bytes are not chunk {index} of {self._size} bytes"
            )
        with self._turn:
            if self._arrived[index] or index in self._writing:
                return
            self._writing.add(index)
        # Kept in memory until it is hashed, which saves reading it back.
        near = self._count > 1 and index < self._hashed + _KEPT
        kept = near and bytes(data)
        try:
            with explained(self._objects.root):
                self._put(index, data)
        except BaseException:
            with self._turn:
                self._writing.remove(index)
            raise
        with self._turn:
            self._writing.remove(index)
            self._arrived[index] = True
            if kept:
                self._waiting[index] = kept
        self._follow()

    def commit(self) -> Blob:
        """Make it an object, when nothing is missing.

        :raises StoreError: a chunk is missing, or was damaged on the disk: it is missing then.
        """
        with explained(self._objects.root):
            if self._count == 1:
                self._hash()
            else:
                self._pool.submit(self._hash).result()
            if missing := self.missing():
                raise StoreError(
                    f"{self._name}: {len(missing)} of {self._count} chunks are missing",
                    hint="Fetch it again: what is there is kept.",
                )
            blob = Blob(digest=f"sha256:{self._sha.hexdigest()}", size=self._size)
            self._objects.commit(self._folder / "data", self._data, blob, self._cipher)
            self._remove()
        return blob

    def discard(self) -> None:
        """Forget what arrived."""
        with explained(self._objects.root):
            self._remove()

    def _lock(self, stack: ExitStack) -> int:
        while True:
            self._folder.mkdir(exist_ok=True, mode=0o700)
            with ExitStack() as attempt, suppress(FileNotFoundError):
                descriptor = self._open(attempt, "data")
                busy = f"another process is receiving {self._name}"
                acquire(descriptor, wait=_WAIT, busy=busy)
                # Whoever had it may have made it an object, or removed it.
                if os.path.samestat(os.fstat(descriptor), (self._folder / "data").stat()):
                    stack.push(attempt.pop_all())
                    return descriptor

    def _open(self, stack: ExitStack, name: str) -> int:
        descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, descriptor)
        return descriptor

    def _resume(self) -> bool:
        """Go on with what an earlier process left, if it is of this size and can be read."""
        keys = self._objects.keys
        arrived = os.pread(self._marks, self._count + 1, 0)
        whole = seal.sealed_size(self._size) if keys else self._size
        if len(arrived) != self._count or os.fstat(self._data).st_size != whole:
            return False
        if keys:
            try:
                self._cipher, _ = unlock(self._data, keys.get)
            except (Damage, StoreError):
                return False
        self._arrived[:] = arrived
        chunk = blank(CHUNK)
        for index in range(self._count):
            if arrived[index]:
                self._read(index, chunk)
        return True

    def _begin(self) -> None:
        # In this order: killed in between, the marks do not fit, and the next one begins anew.
        os.ftruncate(self._marks, 0)
        os.ftruncate(self._data, 0)
        if keys := self._objects.keys:
            self._cipher = Cipher()
            slot = self._cipher.wrap(*keys.current, UNKNOWN, self._size)
            write_all(self._data, self._cipher.header(slot), 0)
        os.ftruncate(self._data, seal.sealed_size(self._size) if keys else self._size)
        os.ftruncate(self._marks, self._count)

    def _put(self, index: int, data: Bytes) -> None:
        if self._cipher:
            frame = self._frame()
            raw = self._cipher.seal(index, data, frame, last=index == self._count - 1)
            write_all(self._data, raw, seal.offset(index))
            self._spare.append(frame)
        else:
            write_all(self._data, data, index * CHUNK)
        self._note(index, arrived=True)

    def _leave(self) -> None:
        with self._turn:
            self._leaving = True

    def _follow(self) -> None:
        """Hash what has arrived in order, in a thread of its own."""
        with self._turn:
            if self._following or self._count == 1 or not self._next_is_there():
                return
            self._following = True
        self._pool.submit(self._hash)

    def _next_is_there(self) -> bool:
        return self._hashed < self._count and bool(self._arrived[self._hashed])

    def _hash(self) -> None:
        while parts := self._next():
            # Several at once: after each the interpreter's lock has to be waited for.
            joined = parts[0] if len(parts) == 1 else b"".join(parts)
            for sha in self._hashes:
                sha.update(joined)
            with self._turn:
                self._hashed += len(parts)
                self._turn.notify_all()

    def _next(self) -> list[Bytes]:
        """The chunks to hash; none, if there is none for now."""
        with self._turn:
            self._following = self._next_is_there() and not self._leaving
            if not self._following:
                return []
            kept: list[Bytes] = []
            while len(kept) < _AT_ONCE and self._hashed + len(kept) in self._waiting:
                kept.append(self._waiting.pop(self._hashed + len(kept)))
        if kept:
            return kept
        part = self._read(self._hashed, self._chunk)
        if part is None:
            with self._turn:
                self._following = False
            return []
        return [part]

    def _read(self, index: int, into: memoryview) -> memoryview | None:
        """A chunk that arrived; None, and it counts as missing, if it was damaged since."""
        part = into[: seal.length(index, self._size)]
        if self._cipher is None:
            read_all(self._data, part, index * CHUNK)
            return part
        frame = self._frame()
        try:
            read_chunk(self._data, self._cipher, index, self._size, frame, part)
        except Damage:
            self._note(index, arrived=False)
            self._arrived[index] = False
            return None
        finally:
            self._spare.append(frame)
        return part

    def _frame(self) -> memoryview:
        try:
            return self._spare.pop()
        except IndexError:
            return blank(FRAME)

    def _note(self, index: int, *, arrived: bool) -> None:
        write_all(self._marks, bytes([arrived]), index)

    def _remove(self) -> None:
        for name in ("arrived", "data"):
            (self._folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # somebody begins the next one
            self._folder.rmdir()
