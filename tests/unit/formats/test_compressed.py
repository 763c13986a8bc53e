from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import zlib
from collections.abc import Callable

import pyarrow
import pytest

from tracklayer.formats import Format

Tell = Callable[..., Format]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "zstd": lambda data: pyarrow.compress(data, "zstd", asbytes=True),
    "lz4": lambda data: pyarrow.compress(data, "lz4", asbytes=True),
}
kinds = pytest.mark.parametrize("kind", PACK)


@kinds
def test_the_name_inside_is_that_without_the_suffix(tell: Tell, kind: str) -> None:
    data = PACK[kind](b"a,b\n1,2\n" * 50_000)
    assert tell(data, "table.csv.x") == Format(f"CSV in {kind}")


@kinds
def test_a_compressed_pickle_is_a_pickle(tell: Tell, kind: str, harm: object) -> None:
    for protocol in (0, 2, 5):
        data = PACK[kind](pickle.dumps(harm, protocol=protocol))
        assert tell(data, "table.csv.gz") == Format(f"pickle in {kind}", "pickle")


@kinds
def test_one_that_comes_late_is_found(tell: Tell, kind: str) -> None:
    length = 3_000_000
    data = b"X" + length.to_bytes(4, "little") + b"a" * length + b"0cos\nsystem\n(S'true'\ntR."
    assert tell(PACK[kind](data)).risk == "pickle"


@kinds
def test_what_is_damaged_is_refused(tell: Tell, kind: str) -> None:
    data = PACK[kind](bytes(range(256)) * 400)
    assert tell(data[:20] + b"\xaa" * 40).risk == "unknown"
    assert tell(data[: len(data) // 2]).risk == "unknown"


def test_several_streams_in_one_file(tell: Tell, harm: object) -> None:
    late = pickle.dumps(harm, protocol=0)
    for kind in ("gzip", "bzip2", "xz"):
        pack = PACK[kind]
        assert tell(pack(b"I1\n0") + pack(late)) == Format(f"pickle in {kind}", "pickle")


def test_compressed_twice(tell: Tell, harm: object) -> None:
    data = gzip.compress(bz2.compress(pickle.dumps(harm)))
    assert tell(data) == Format("pickle in bzip2 in gzip", "pickle")


def test_a_bomb_is_not_expanded(tell: Tell) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert tell(bomb) == Format("binary in gzip", "unknown")


def test_a_text_that_begins_like_zlib(tell: Tell) -> None:
    assert tell(b"x^2 + y^2 = 1\n") == Format("text")
