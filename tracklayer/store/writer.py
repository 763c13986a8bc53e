"""An object that is being written from its start to its end."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tracklayer.errors import StoreError
from tracklayer.store.disk import borrow, explained, give_back, write_all
from tracklayer.store.manifest import Blob
from tracklayer.store.objects import Objects
from tracklayer.store.seal import CHUNK, FRAME, Bytes, Cipher, offset

_RING = 4  # chunks in memory: one is filled or encrypted while others are hashed


class Writer:
    """New content, encrypted chunk by chunk as it comes; hashed by a second thread.

    A context manager: left without :meth:`commit`, nothing stays. For one thread.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._cipher = Cipher() if objects.keys else None
        self._stack = ExitStack()
        self._sha = hashlib.sha256()
        self._pool: ThreadPoolExecutor | None = None
        self._hashing: deque[Future[None]] = deque()
        self._ring = deque([borrow(CHUNK)])
        self._filled = 0
        self._held: memoryview | None = None
        self._index = 0
        self._frame = borrow(FRAME)

    def __enter__(self) -> Self:
        disk = self._objects.disk
        with ExitStack() as stack:
            stack.callback(self._give_back)
            stack.enter_context(disk.session())
            self._path, self._descriptor = stack.enter_context(disk.temporary())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def write(self, data: Bytes) -> None:
        """Append; the memory of ``data`` is the caller's again afterwards.

        :raises StoreError: the disk is full, the store cannot be written.
        """
        view = memoryview(data).cast("B")
        while view:
            room = self._room()[: len(view)]
            room[:] = view[: len(room)]
            self._grew(len(room))
            view = view[len(room) :]

    def fill(self, descriptor: int) -> None:
        """Append all that can be read from an open file.

        :raises StoreError: the disk is full, the store cannot be written.
        :raises OSError: the file cannot be read.
        """
        while count := os.readv(descriptor, [self._room()]):
            self._grew(count)

    def commit(self) -> Blob:
        """Make it an object; to be called once.

        :raises StoreError: the disk is full, the store cannot be written, there is no key.
        """
        chunk = self._ring[0][: self._filled] if self._held is None else self._held
        size = self._index * CHUNK + len(chunk)
        if self._index:
            self._flush(chunk, last=True)
            for done in self._hashing:
                done.result()
        else:  # one chunk: a thread would take longer to start
            self._sha.update(chunk)
            self._put(chunk, last=True)
        blob = Blob(digest=f"sha256:{self._sha.hexdigest()}", size=size)
        with explained(self._objects.root):
            self._objects.commit(self._path, self._descriptor, blob, self._cipher)
        return blob

    def _room(self) -> memoryview:
        """What is free of the current chunk."""
        if self._filled == CHUNK:
            self._held = self._ring[0]
            if len(self._ring) < _RING:
                self._ring.appendleft(borrow(CHUNK))
            else:
                self._hashing.popleft().result()
                self._ring.rotate(1)
            self._filled = 0
        return self._ring[0][self._filled :]

    def _grew(self, count: int) -> None:
        """A full chunk is held until something follows it: the last one is encrypted as such."""
        self._filled += count
        if self._held is not None:
            self._flush(self._held, last=False)
            self._held = None

    def _flush(self, chunk: memoryview, *, last: bool) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1)
            self._stack.callback(self._pool.shutdown)
        self._hashing.append(self._pool.submit(self._sha.update, chunk))
        self._put(chunk, last=last)
        self._index += 1

    def _give_back(self) -> None:
        for memory in (*self._ring, self._frame):
            give_back(memory)

    def _put(self, chunk: memoryview, *, last: bool) -> None:
        with explained(self._objects.root):
            if self._cipher is None:
                write_all(self._descriptor, chunk, self._index * CHUNK)
                return
            frame = self._cipher.seal(self._index, chunk, self._frame, last=last)
            write_all(self._descriptor, frame, offset(self._index))


def store_file(objects: Objects, path: Path) -> Blob:
    """Store a file, hashed and encrypted in one pass.

    :raises StoreError: it cannot be read, it changed meanwhile, the disk is full.
    """
    with explained(objects.root), path.open("rb", buffering=0) as source, Writer(objects) as writer:
        before = os.fstat(source.fileno())
        writer.fill(source.fileno())
        after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise StoreError(f"{path} changed while it was being stored")
        return writer.commit()
