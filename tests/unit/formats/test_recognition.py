from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklayer.errors import StoreError
from tracklayer.formats import SAFETENSORS, Format, recognise, recognise_file

Tell = Callable[..., Format]
WEIGHTS = safetensors.numpy.save({"x": np.arange(20.0)})


def seeds() -> list[bytes]:
    """A small file of each kind that has a structure."""
    plain = [WEIGHTS, b"\x08\x01\x12\x05\x0a\x03abc", b"GGUF\3" + bytes(40), b"a,b\n1,2\n"]
    for protocol in range(6):
        plain.append(pickle.dumps([np.arange(3), {"a": 1}], protocol=protocol))
    array, archive, tar = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3, [("a", "i4"), ("b", "f8", (2,))]))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/config.json", "{}")
        file.writestr("a/x.npy", array.getvalue())
    with tarfile.open(fileobj=tar, mode="w") as file:
        info = tarfile.TarInfo("x.npy")
        info.size = len(array.getvalue())
        file.addfile(info, io.BytesIO(array.getvalue()))
    plain += [array.getvalue(), archive.getvalue(), tar.getvalue()]
    return plain + [pack(plain[-1]) for pack in (gzip.compress, bz2.compress, lzma.compress)]


SEEDS = seeds()


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=600), st.text(max_size=12))
def test_any_bytes_under_any_name_have_a_format(data: bytes, name: str) -> None:
    assert isinstance(recognise(io.BytesIO(data), name), Format)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 20_000), st.binary(max_size=4), st.integers(0, 4)), max_size=6
    ),
    st.integers(0, 20_000),
)
def test_any_damage_has_a_format(
    seed: bytes, changes: list[tuple[int, bytes, int]], cut: int
) -> None:
    data = bytearray(seed)
    for place, put, removed in changes:
        place %= len(data) + 1
        data[place : place + removed] = put
    data = data[: max(1, cut % (2 * len(seed)))]
    assert isinstance(recognise(io.BytesIO(bytes(data)), "x.csv.gz"), Format)


def test_a_file_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(WEIGHTS)
    assert recognise_file(tmp_path / "x") == SAFETENSORS


def test_a_stream_that_gives_little_at_a_time() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 7))

    assert recognise(Slow(WEIGHTS * 3), "x").risk == "unknown"
    assert recognise(Slow(WEIGHTS), "x") == SAFETENSORS


def test_what_a_stream_raises_is_not_taken_for_a_format() -> None:
    class Damaged(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 100_000:
                raise StoreError("damaged")
            return super().read(size)

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a", bytes(300_000))
    for content in (data.getvalue(), b"a,b\n" * 100_000):
        with pytest.raises(StoreError):
            recognise(Damaged(content), "x")


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 131072, 1_000_000])
def test_the_bounds_of_what_is_read(tell: Tell, size: int) -> None:
    assert tell(b"a" * size) == Format("text")
    assert tell(b"a" * (size - 1) + b"\0").risk == "unknown"
