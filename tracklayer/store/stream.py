"""Encrypted files on open descriptors: written, read as a whole, read in part.

Memory is a few chunks, whatever the size of a file. Reading, ciphers and writing leave the
interpreter's lock, so two threads, each with every other chunk, keep two cores busy.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO

from tracklayer.store.disk import borrow, give_back, read_all, write_all
from tracklayer.store.keys import Keys
from tracklayer.store.seal import (
    CHUNK,
    FRAME,
    HEADER,
    UNKNOWN,
    Cipher,
    Damage,
    Header,
    Slot,
    chunks,
    length,
    offset,
    sealed_size,
    unwrap,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_THREADS = 2


def seal(source: BinaryIO, target: BinaryIO, keys: Keys, *, digest: bytes = UNKNOWN) -> None:
    """Encrypt a file into another; both are open without a buffer's rest, from their start.

    :param digest: SHA-256 of the content, noted in the header.
    :raises StoreError: there is no key.
    :raises OSError: a file cannot be read or written.
    """
    reading, writing = source.fileno(), target.fileno()
    size = os.fstat(reading).st_size
    cipher = Cipher()
    last = chunks(size) - 1

    def encrypt(index: int, plain: memoryview, frame: memoryview) -> None:
        part = plain[: length(index, size)]
        read_all(reading, part, index * CHUNK)
        write_all(writing, cipher.seal(index, part, frame, last=index == last), offset(index))

    _each(last + 1, encrypt)
    write_all(writing, cipher.header(cipher.wrap(*keys.current, digest, size)), 0)
    os.ftruncate(writing, sealed_size(size))


def unseal(source: BinaryIO, target: BinaryIO, keys: Keys) -> None:
    """Decrypt what :func:`seal` wrote.

    :raises Damage: it is not what was written; ``target`` then holds what was right so far.
    :raises StoreError: the key is missing.
    :raises OSError: a file cannot be read or written.
    """
    cipher, slot = unlock(source.fileno(), keys.get)
    decrypt(source.fileno(), target.fileno(), cipher, slot.size)
    os.ftruncate(target.fileno(), slot.size)


def unlock(descriptor: int, find: Callable[[str], bytes]) -> tuple[Cipher, Slot]:
    """Read the header of a file, and check the file's length against it.

    :raises Damage: it is not what was written.
    :raises StoreError: the key is missing.
    """
    raw = os.pread(descriptor, HEADER, 0)
    cipher, slot = unwrap(Header.parse(raw), find)
    check_size(descriptor, slot)
    return cipher, slot


def check_size(descriptor: int, slot: Slot) -> None:
    """See whether a file is as long as its header says.

    :raises Damage: it is not.
    """
    if (found := os.fstat(descriptor).st_size) != sealed_size(slot.size):
        raise Damage(f"it has {found} bytes instead of {sealed_size(slot.size)}")


def decrypt(reading: int, writing: int | None, cipher: Cipher, size: int) -> None:
    """Decrypt all chunks, into another file or, to see that they are right, into nothing.

    :raises Damage: a chunk is not what was written.
    """
    last = chunks(size) - 1

    def one(index: int, plain: memoryview, frame: memoryview) -> None:
        part = plain[: length(index, size)]
        read_chunk(reading, cipher, index, size, frame, part)
        if writing is not None:
            write_all(writing, part, index * CHUNK)

    _each(last + 1, one)


def read_chunk(
    reading: int, cipher: Cipher, index: int, size: int, frame: memoryview, into: memoryview
) -> None:
    """Read one chunk into memory of just its length.

    :raises Damage: it is not what was written.
    """
    raw = frame[: len(into) + FRAME - CHUNK]
    try:
        read_all(reading, raw, offset(index))
    except EOFError:
        raise Damage(f"its chunk {index} is missing") from None
    cipher.open(index, raw, into, last=index == chunks(size) - 1)


class SealedReader(io.RawIOBase):
    """The content of an encrypted file, seekable; decrypts the chunks that are read.

    :param failed: makes the error to raise of a :class:`Damage`.
    """

    def __init__(
        self, descriptor: int, cipher: Cipher, size: int, failed: Callable[[Damage], Exception]
    ) -> None:
        self._descriptor, self._cipher, self._size = descriptor, cipher, size
        self._failed = failed
        self._position = 0
        self._frame, self._chunk = borrow(FRAME), borrow(CHUNK)
        self._index = -1  # of the chunk in memory

    def readinto(self, into: WriteableBuffer, /) -> int:
        view = memoryview(into).cast("B")
        if self._position >= self._size or not view:
            return 0
        index, skip = divmod(self._position, CHUNK)
        whole = length(index, self._size)
        count = min(len(view), whole - skip)
        if count == whole and index != self._index:
            self._read(index, view[:whole])
        else:
            if index != self._index:
                self._index = -1
                self._read(index, self._chunk[:whole])
                self._index = index
            view[:count] = self._chunk[skip : skip + count]
        self._position += count
        return count

    def _read(self, index: int, into: memoryview) -> None:
        try:
            read_chunk(self._descriptor, self._cipher, index, self._size, self._frame, into)
        except Damage as damage:
            raise self._failed(damage) from damage

    def seek(self, to: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + to < 0:
            raise ValueError("a position before the start of the file")
        self._position = start + to
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
            give_back(self._frame)
            give_back(self._chunk)
        super().close()


def _each(count: int, work: Callable[[int, memoryview, memoryview], None]) -> None:
    """Call ``work`` for each chunk, with memory for its content and for its frame."""

    def share(first: int) -> None:
        plain, frame = borrow(CHUNK), borrow(FRAME)
        for index in range(first, count, _THREADS):
            work(index, plain, frame)
        give_back(plain)
        give_back(frame)

    if count == 1:
        share(0)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(share, range(_THREADS)))
