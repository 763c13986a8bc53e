"""The format of an encrypted file: a header that can be rewritten, and chunks that cannot.

::

    0      prefix: magic, version, size of a chunk, random id of the file
    64     slot 0: number, key id, wrapped data key, digest and size of the content, checksum
    512    slot 1
    1024   chunk 0, chunk 1, ...: ciphertext of 256 KiB (the last one: what is left), tag, salt

Every file has a data key of its own. A slot holds it wrapped by a key-encryption key (AES-256-GCM;
prefix, number, key id, digest and size are associated data). Of two whole slots the one with the
higher number counts, so a slot can be written beside the other, and a writer that dies at any byte
of it leaves the header as good as it was.

A chunk is AES-256-GCM under the data key, with the prefix as associated data. Its nonce is a salt,
its index and whether it is the last: a chunk that is missing, repeated, moved, or of another file
is refused, and so is a file that ends early. The salt is random because a chunk of a
:class:`~tracklayer.store.draft.Draft` can be written twice, and two contents must never share a
nonce. The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015) with a salt.

This module knows bytes, not files.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tracklayer.errors import StoreError

CHUNK = 1 << 18  # small enough for a processor's cache, and for a part read at random
HEADER = 1024
KEY = 32
UNKNOWN = bytes(32)
"""The digest of a file whose content is not known yet, or was not asked for."""

Bytes = bytes | bytearray | memoryview

_MAGIC = b"trkl\x89\r\n\x1a"
_VERSION = 1
_PREFIX = struct.Struct(">8sH2xI16s32x")
_SLOT = struct.Struct(">Q8s12s48s32sQ")
_CHECKSUM = struct.Struct(">I")
_PLACES = (_PREFIX.size, 512)  # each in a sector of its own
SLOT = _SLOT.size + _CHECKSUM.size
_SALT = 4
_OVERHEAD = 16 + _SALT
FRAME = CHUNK + _OVERHEAD


class Damage(Exception):
    """The bytes are not what was written. Says what, but not of which file."""


def fingerprint(key: bytes) -> str:
    """The id of a key-encryption key: 16 hex digits that say nothing about it."""
    return hashlib.sha256(b"tracklayer key-encryption key\0" + key).hexdigest()[:16]


def chunks(size: int) -> int:
    """How many chunks content of so many bytes has; an empty file has one, which is empty."""
    return max(1, -(-size // CHUNK))


def length(index: int, size: int) -> int:
    """Bytes of content in a chunk."""
    return min(CHUNK, size - index * CHUNK)


def offset(index: int) -> int:
    """Where a chunk begins in the file."""
    return HEADER + index * FRAME


def sealed_size(size: int) -> int:
    """Bytes of the encrypted file."""
    return HEADER + size + chunks(size) * _OVERHEAD


@dataclass(frozen=True, slots=True)
class Slot:
    """One wrapping of the data key."""

    number: int
    key_id: str
    digest: bytes
    size: int
    nonce: bytes = bytes(12)
    wrapped: bytes = bytes(48)

    def pack(self) -> bytes:
        """As it is written."""
        fields = (self.number, bytes.fromhex(self.key_id), self.nonce, self.wrapped)
        packed = _SLOT.pack(*fields, self.digest, self.size)
        return packed + _CHECKSUM.pack(zlib.crc32(packed))

    @classmethod
    def unpack(cls, raw: bytes) -> Self | None:
        """None: nothing was written, or not all of it."""
        packed, (checksum,) = raw[: _SLOT.size], _CHECKSUM.unpack(raw[_SLOT.size :])
        if zlib.crc32(packed) != checksum:
            return None
        number, key_id, nonce, wrapped, digest, size = _SLOT.unpack(packed)
        return cls(number, key_id.hex(), digest, size, nonce, wrapped)

    def associated(self, prefix: bytes) -> bytes:
        """What the wrapping authenticates beside the data key."""
        return prefix + replace(self, nonce=bytes(12), wrapped=bytes(48)).pack()


@dataclass(frozen=True, slots=True)
class Header:
    """What a file begins with."""

    prefix: bytes
    slots: tuple[Slot | None, Slot | None]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the first :data:`HEADER` bytes of a file.

        :raises Damage: it is not the header of an encrypted file.
        """
        if len(raw) != HEADER or not raw.startswith(_MAGIC):
            raise Damage("its header is missing")
        prefix = raw[: _PREFIX.size]
        _, version, chunk, file_id = _PREFIX.unpack(prefix)
        if (version, chunk) != (_VERSION, CHUNK):
            raise Damage(f"its header says version {version} with chunks of {chunk} bytes")
        first, second = (Slot.unpack(raw[place : place + SLOT]) for place in _PLACES)
        padding = raw[_PLACES[0] + SLOT : _PLACES[1]] + raw[_PLACES[1] + SLOT :]
        if prefix != _PREFIX.pack(_MAGIC, version, chunk, file_id) or any(padding):
            raise Damage("its header was changed")
        if first is None and second is None:
            raise Damage("its header holds no data key")
        return cls(prefix, (first, second))

    @property
    def newest(self) -> list[Slot]:
        """The slots that are whole, the one that counts first."""
        whole = [slot for slot in self.slots if slot]
        return sorted(whole, key=lambda slot: slot.number, reverse=True)

    def place_beside(self, slot: Slot) -> int:
        """Where the other slot lies in the file: a new one may be written there."""
        return _PLACES[1 - self.slots.index(slot)]


class Cipher:
    """Seals and opens the chunks of one file, from any number of threads.

    :param prefix: the prefix of its header, and ``key`` its data key; a new file makes both.
    """

    def __init__(self, prefix: bytes | None = None, key: bytes | None = None) -> None:
        fresh = b"" if prefix and key else os.urandom(KEY + 16)
        self.prefix = prefix or _PREFIX.pack(_MAGIC, _VERSION, CHUNK, fresh[KEY:])
        self._key = key or fresh[:KEY]
        self._aead = AESGCM(self._key)

    def seal(self, index: int, data: Bytes, frame: memoryview, *, last: bool) -> memoryview:
        """Encrypt a chunk into ``frame``, of at least ``FRAME`` bytes; the part that it fills."""
        salt = os.urandom(_SALT)
        end = len(data) + 16
        self._aead.encrypt_into(_nonce(salt, index, last), data, self.prefix, frame[:end])
        frame[end : end + _SALT] = salt
        return frame[: end + _SALT]

    def open(self, index: int, frame: memoryview, into: memoryview, *, last: bool) -> None:
        """Decrypt a chunk.

        :raises Damage: it is not what was written as this chunk of this file.
        """
        nonce = _nonce(bytes(frame[-_SALT:]), index, last)
        try:
            self._aead.decrypt_into(nonce, frame[:-_SALT], self.prefix, into)
        except (InvalidTag, ValueError):
            raise Damage(f"its chunk {index} is not what was written") from None

    def wrap(self, key_id: str, key: bytes, digest: bytes, size: int, *, number: int = 1) -> Slot:
        """A slot with the data key under a key-encryption key."""
        slot = Slot(number, key_id, digest, size, nonce=os.urandom(12))
        wrapped = AESGCM(key).encrypt(slot.nonce, self._key, slot.associated(self.prefix))
        return replace(slot, wrapped=wrapped)

    def header(self, slot: Slot) -> bytes:
        """A whole header with this slot alone."""
        raw = bytearray(HEADER)
        raw[: len(self.prefix)] = self.prefix
        raw[_PLACES[0] : _PLACES[0] + SLOT] = slot.pack()
        return bytes(raw)


def unwrap(header: Header, find: Callable[[str], bytes]) -> tuple[Cipher, Slot]:
    """The cipher of a file, and the slot that gave its data key.

    :param find: the key-encryption key of an id.
    :raises Damage: no slot is what was written.
    :raises StoreError: what ``find`` raises where it has none of the keys.
    """
    first: Exception | None = None
    for slot in header.newest:
        try:
            key = AESGCM(find(slot.key_id)).decrypt(
                slot.nonce, slot.wrapped, slot.associated(header.prefix)
            )
            return Cipher(header.prefix, key), slot
        except InvalidTag:
            first = first or Damage("its header was changed")
        except StoreError as error:
            first = first or error
    assert first is not None  # a header has a slot
    raise first


def _nonce(salt: bytes, index: int, last: bool) -> bytes:
    return salt + index.to_bytes(7, "big") + bytes([last])
