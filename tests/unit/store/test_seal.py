"""The format: what was written comes back, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklayer.errors import StoreError
from tracklayer.store import seal
from tracklayer.store.seal import CHUNK, FRAME, HEADER, SLOT, Cipher, Damage, Header, Slot, unwrap

KEY = bytes(range(32))
ID = seal.fingerprint(KEY)
EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5]


def find(key_id: str) -> bytes:
    if key_id == ID:
        return KEY
    raise StoreError(f"no key {key_id}")


def written(content: bytes) -> bytes:
    """A whole encrypted file."""
    cipher = Cipher()
    count = seal.chunks(len(content))
    frame = memoryview(bytearray(FRAME))
    parts = [cipher.header(cipher.wrap(ID, KEY, bytes(32), len(content)))]
    for index in range(count):
        data = content[index * CHUNK : (index + 1) * CHUNK]
        parts.append(bytes(cipher.seal(index, data, frame, last=index == count - 1)))
    return b"".join(parts)


def read(raw: bytes) -> bytes:
    """Its content, as a reader that trusts only the header finds it."""
    cipher, slot = unwrap(Header.parse(raw[:HEADER]), find)
    if len(raw) != seal.sealed_size(slot.size):
        raise Damage("its length")
    parts = []
    for index in range(seal.chunks(slot.size)):
        into = bytearray(seal.length(index, slot.size))
        start = seal.offset(index)
        frame = memoryview(raw)[start : start + len(into) + FRAME - CHUNK]
        last = index == seal.chunks(slot.size) - 1
        cipher.open(index, frame, memoryview(into), last=last)
        parts.append(bytes(into))
    return b"".join(parts)


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("size", EDGES)
def test_content_comes_back(size: int) -> None:
    content = os.urandom(size)
    raw = written(content)
    assert len(raw) == seal.sealed_size(size)
    assert read(raw) == content


@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 2 * CHUNK + 2), fill=st.binary(min_size=1, max_size=9))
def test_content_of_any_size_comes_back(size: int, fill: bytes) -> None:
    content = (fill * (size // len(fill) + 1))[:size]
    assert read(written(content)) == content


@given(
    number=st.integers(0, 2**64 - 1),
    key_id=st.binary(min_size=8, max_size=8),
    digest=st.binary(min_size=32, max_size=32),
    size=st.integers(0, 2**64 - 1),
    nonce=st.binary(min_size=12, max_size=12),
    wrapped=st.binary(min_size=48, max_size=48),
)
def test_a_slot_comes_back(
    number: int, key_id: bytes, digest: bytes, size: int, nonce: bytes, wrapped: bytes
) -> None:
    slot = Slot(number, key_id.hex(), digest, size, nonce, wrapped)
    raw = slot.pack()
    assert len(raw) == SLOT
    assert Slot.unpack(raw) == slot


def test_equal_content_is_never_equal_on_the_disk() -> None:
    one, two = written(b"same"), written(b"same")
    assert one[HEADER:] != two[HEADER:]
    assert one[:HEADER] != two[:HEADER]


def test_a_chunk_written_twice_has_two_key_streams() -> None:
    """Or two contents of one place, seen at two times, would show each other."""
    cipher, frame = Cipher(), memoryview(bytearray(FRAME))
    streams = set()
    for content in (b"first", b"other"):
        raw = bytes(cipher.seal(0, content, frame, last=True))
        streams.add(bytes(a ^ b for a, b in zip(raw[:5], content, strict=True)))
    assert len(streams) == 2


def test_every_bit_of_the_header_counts() -> None:
    """Only what is in the slot that does not count may change: a writer can die in it."""
    raw = written(b"content")
    idle = range(512 * 8, (512 + SLOT) * 8)
    for bit in range(HEADER * 8):
        if bit in idle:
            assert read(flipped(raw, bit)) == b"content"
        else:
            with pytest.raises((Damage, StoreError)):
                read(flipped(raw, bit))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_every_bit_of_a_chunk_counts(data: st.DataObject) -> None:
    raw = RAW[CHUNK + 1]
    bit = data.draw(st.integers(HEADER * 8, len(raw) * 8 - 1))
    with pytest.raises(Damage, match="chunk"):
        read(flipped(raw, bit))


CONTENT = os.urandom(3 * CHUNK + 5)
RAW = {size: written(CONTENT[:size]) for size in (CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5)}
OTHER = written(CONTENT)


def frames(raw: bytes) -> list[bytes]:
    return [raw[start : start + FRAME] for start in range(HEADER, len(raw), FRAME)]


def dropped(parts: list[bytes], at: int) -> list[bytes]:
    return [*parts[:at], *parts[at + 1 :]]


def repeated(parts: list[bytes], at: int) -> list[bytes]:
    return [*parts[: at + 1], parts[at], *parts[at + 1 :]]


def overwritten(parts: list[bytes], at: int) -> list[bytes]:
    """Repeated at the cost of the next one."""
    return [*parts[: at + 1], parts[at], *parts[at + 2 :]]


def swapped(parts: list[bytes], at: int) -> list[bytes]:
    other = (at + 1) % len(parts)
    changed = list(parts)
    changed[at], changed[other] = changed[other], changed[at]
    return changed


def spliced(parts: list[bytes], at: int) -> list[bytes]:
    """The chunk at the same place of another file with the same content under the same key."""
    return [*parts[:at], frames(OTHER)[at][: len(parts[at])], *parts[at + 1 :]]


def tail_of_another(parts: list[bytes], at: int) -> list[bytes]:
    return [*parts[:at], *frames(OTHER)[at:]]


def ended(parts: list[bytes], at: int) -> list[bytes]:
    return parts[:at]


def ended_within(parts: list[bytes], at: int) -> list[bytes]:
    return [*parts[:at], parts[at][:-1]]


def extended(parts: list[bytes], at: int) -> list[bytes]:
    return [*parts, parts[at]]


def extended_by_a_byte(parts: list[bytes], at: int) -> list[bytes]:
    return [*parts, b"\0"]


@pytest.mark.parametrize("size", [3 * CHUNK, 3 * CHUNK + 5])
@pytest.mark.parametrize(
    "change",
    [
        dropped,
        repeated,
        overwritten,
        swapped,
        spliced,
        tail_of_another,
        ended,
        ended_within,
        extended,
        extended_by_a_byte,
    ],
)
def test_chunks_are_refused_anywhere_but_in_their_place(
    change: Callable[[list[bytes], int], list[bytes]], size: int
) -> None:
    raw = RAW[size]
    parts = frames(raw)
    for at in range(len(parts)):
        changed = raw[:HEADER] + b"".join(change(parts, at))
        assert changed != raw
        with pytest.raises(Damage):
            read(changed)


@pytest.mark.parametrize("at", range(3))
def test_a_file_cut_at_a_chunk_is_refused_even_with_its_size_changed(at: int) -> None:
    """Whoever can write a header with a size of their own still lacks the flag of the last."""
    raw = RAW[3 * CHUNK + 5]
    cipher, _ = unwrap(Header.parse(raw[:HEADER]), find)
    header = cipher.header(cipher.wrap(ID, KEY, bytes(32), (at + 1) * CHUNK))
    with pytest.raises(Damage, match=f"chunk {at}"):
        read(header + b"".join(frames(raw)[: at + 1]))


@pytest.mark.parametrize(
    "forge",
    [
        lambda slot: replace(slot, number=9),
        lambda slot: replace(slot, digest=b"x" * 32),
        lambda slot: replace(slot, size=8),
        lambda slot: replace(slot, nonce=b"x" * 12),
    ],
)
def test_every_field_of_a_slot_is_authenticated(forge: Callable[[Slot], Slot]) -> None:
    """Not only by its checksum, which anybody can compute."""
    raw = written(b"content")
    forged = forge(Header.parse(raw[:HEADER]).newest[0]).pack()
    with pytest.raises(Damage, match="header was changed"):
        read(raw[:64] + forged + raw[64 + SLOT :])


def test_a_slot_of_another_file_is_refused() -> None:
    one, two = written(b"content"), written(b"content")
    with pytest.raises(Damage, match="header was changed"):
        read(one[:64] + two[64:HEADER] + one[HEADER:])


def test_a_header_is_good_at_every_byte_of_writing_a_slot() -> None:
    """The old slot counts until the new one is whole, and then the new one; also while the old
    one is being wiped."""
    new_key = b"n" * 32
    raw = bytearray(written(b"content"))
    header = Header.parse(bytes(raw[:HEADER]))
    cipher, slot = unwrap(header, find)
    fresh = cipher.wrap(seal.fingerprint(new_key), new_key, slot.digest, slot.size, number=2)
    place = header.place_beside(slot)
    for count in range(SLOT):
        half = bytes(raw[:place] + fresh.pack()[:count] + raw[place + count :])
        assert Header.parse(half[:HEADER]).newest[0] == slot
        assert read(half) == b"content"
    raw[place : place + SLOT] = fresh.pack()
    for count in range(SLOT + 1):
        half = bytes(raw[:64] + bytes(count) + raw[64 + count :])
        now = Header.parse(half[:HEADER])
        assert now.newest[0] == fresh
        assert unwrap(now, lambda _: new_key)[1] == fresh


def test_the_other_slot_helps_where_the_newest_ones_key_is_not_there() -> None:
    raw = bytearray(written(b"content"))
    header = Header.parse(bytes(raw[:HEADER]))
    cipher, slot = unwrap(header, find)
    fresh = cipher.wrap("0" * 16, b"n" * 32, slot.digest, slot.size, number=2)
    place = header.place_beside(slot)
    raw[place : place + SLOT] = fresh.pack()
    assert read(bytes(raw)) == b"content"


def test_a_missing_key_is_named() -> None:
    cipher = Cipher()
    header = cipher.header(cipher.wrap("ab" * 8, KEY, bytes(32), 0))
    with pytest.raises(StoreError, match="no key abababababababab"):
        unwrap(Header.parse(header), find)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "missing"),
        (b"plain text", "missing"),
        (bytes(HEADER), "missing"),
        (RAW[CHUNK + 1][:1000], "missing"),
        (RAW[CHUNK + 1][:64] + bytes(HEADER - 64), "no data key"),
    ],
)
def test_what_is_no_header_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(Damage, match=why):
        Header.parse(raw)


def test_a_key_id_says_nothing_about_its_key_but_is_always_the_same() -> None:
    assert seal.fingerprint(KEY) == ID == seal.fingerprint(bytes(KEY))
    assert len(ID) == 16
    assert KEY.hex()[:16] not in ID
