from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import safetensors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracklayer.formats import Format
from tracklayer.formats.content import SeekableContent
from tracklayer.formats.pickles import is_pickle

Tell = Callable[..., Format]
PICKLE = Format("pickle", "pickle")


def called(data: bytes) -> bool:
    """Does CPython's own unpickler call something that the data names?"""
    calls = []

    class Spy(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            # As a module would have to be for an import to find it.
            if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
                raise ImportError(module)
            return lambda *arguments: calls.append(arguments)

    try:
        while True:
            Spy(io.BytesIO(data)).load()
            return bool(calls)
    except Exception:  # noqa: BLE001 - whatever it raises, the question is what it did before
        return bool(calls)


def found(data: bytes) -> bool:
    return is_pickle(SeekableContent(io.BytesIO(data)))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "content",
    [
        {"weights": [1.0, 2.0], "name": "x"},
        np.arange(10),
        collections.OrderedDict(a=1),
        [np.float64(1.0), {"a": (1, 2)}, {1, 2}, b"bytes", "x" * 100_000],
    ],
)
def test_every_protocol_is_found_under_any_name(tell: Tell, content: Any, protocol: int) -> None:
    data = pickle.dumps(content, protocol=protocol)
    for name in ("model.safetensors", "model.onnx", "labels.txt", "data.csv"):
        assert tell(data, name) == PICKLE


@pytest.mark.parametrize("protocol", range(6))
def test_one_that_does_harm_is_found(tell: Tell, harm: object, protocol: int) -> None:
    data = pickle.dumps(harm, protocol=protocol)
    assert tell(data) == PICKLE
    assert tell(data + b"\x00 anything behind it") == PICKLE
    assert tell(data[:-1]) == PICKLE, "it runs before its end is read"


def test_several_in_one_file_are_followed(tell: Tell, harm: object) -> None:
    """As torch.save wrote them before its archives: numbers first, then the object."""
    numbers = [pickle.dumps(number, protocol=2) for number in (0x1950A86A20F9469CFC6C, 1001)]
    assert tell(b"".join([*numbers, pickle.dumps(harm, protocol=2), b"raw"])) == PICKLE
    assert tell(b"I1\n." * 3 + pickle.dumps(harm, protocol=0)) == PICKLE


@pytest.mark.parametrize(
    "padding",
    [
        b"S'" + b"a" * 200_000 + b"'\n0",
        b"V" + b"a" * 200_000 + b"\n0",
        b"X\x40\x0d\x03\x00" + b"a" * 200_000 + b"0",
        b"V\n0" * 10_000,
        b"(" * 7_000 + b"1" * 7_000,
        b"I1\x00 of C\n0",
    ],
)
def test_what_comes_late_is_found(tell: Tell, padding: bytes) -> None:
    data = padding + b"cos\nsystem\n(S'true'\ntR."
    assert called(data)
    assert tell(data, "notes.txt") == PICKLE


def test_a_pickle_that_is_a_text_as_well(tell: Tell) -> None:
    data = b"cos\nsystem\n(S'true'\ntR.\nname,value\na,1\n"
    data.decode("ascii")
    assert tell(data, "data.csv") == PICKLE


def test_a_pickle_that_is_a_valid_safetensors_as_well(tell: Tell) -> None:
    """The low bytes of the header's length are a string's opcode and length, which skips into the
    header; in a string of the header the names of a function follow."""
    start = b'{"__metadata__":{"a":"'
    body = start + b"U " + b"m" * 32 + b"U " + b"n" * 32 + b'q\xc2\x93)R."}}'
    length = int.from_bytes(bytes([ord("U"), 6 + len(start)]), "little")
    data = length.to_bytes(8, "little") + body.ljust(length)
    assert safetensors.deserialize(data) == []
    assert called(data)
    assert tell(data, "model.safetensors") == PICKLE


def test_joblib_is_a_pickle(tell: Tell, tmp_path: Path) -> None:
    for compress in (0, "zlib", "gzip", "bz2", "lzma", "xz"):
        joblib.dump({"weights": np.arange(1000.0)}, tmp_path / "model", compress=compress)
        form = tell((tmp_path / "model").read_bytes(), "model.bin")
        assert form.risk == "pickle"
        assert form.name.startswith("pickle")


@pytest.mark.parametrize(
    "text",
    [
        "class,x\n1,2\n",
        "cat\ndog\nbird\n",
        "N.B. this is a note",
        "N.",
        "(c) 2020 somebody\n",
        "Vendor,Amount\n1,2\n",
        "V1\nV2\nV3\n",
        "The quick brown fox\n",
        "X,Y\n1,2\n",
        "I am\n",
        "id,label\n1,2\n",
        ".hidden\n",
        "Beyond\n",
        "Sepal,Petal\n'a'\n",
        "]\n}\n",
        "",
    ],
)
def test_texts_are_none(tell: Tell, text: str) -> None:
    assert not called(text.encode())
    assert tell(text.encode()).risk is None


def test_a_large_text_that_begins_like_one_is_told_fast(tell: Tell) -> None:
    assert tell(b"V,1\n" * 500_000, "rows.csv") == Format("CSV")
    assert tell(b"Timestamp,value\n" + b"1,2\n" * 50_000, "rows.csv") == Format("CSV")


def test_marks_without_end_are_no_text(tell: Tell) -> None:
    assert tell(b"(" * 1_100_000) == PICKLE


objects = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@settings(max_examples=80, deadline=None)
@given(objects, st.sampled_from([2, 3, 4, 5]))
def test_whatever_is_pickled_is_found(content: object, protocol: int) -> None:
    assert found(pickle.dumps(content, protocol=protocol))


opcodes = st.sampled_from(
    [
        *(b"(", b"0", b"1", b"2", b"N", b")", b"]", b"}", b"t", b"l", b"d", b"a", b"e", b"s", b"u"),
        *(b"I1\n", b"I01\n", b"L1L\n", b"F1.5\n", b"S'a'\n", b'S"a"\n', b"Vos\n", b"p0\n", b"g0\n"),
        *(b"cos\nsystem\n", b"ios\nsystem\n", b"\x8c\x02os", b"X\x02\x00\x00\x00os", b"\x93"),
        *(
            b"R",
            b"o",
            b"b",
            b"\x81",
            b"\x92",
            b"\x85",
            b"\x86",
            b"\x87",
            b"q\x00",
            b"h\x00",
            b"\x94",
        ),
        *(b"\x80\x02", b"\x80\x04", b".", b"K\x01", b"M\x01\x02", b"J\x01\x02\x03\x04", b"\x88"),
        *(b"U\x01a", b"C\x01a", b"B\x01\x00\x00\x00a", b"T\x01\x00\x00\x00a", b"\x8a\x01\x01"),
        *(b"G" + bytes(8), b"\x95" + bytes(8), b"\x8f", b"\x90", b"\x91", b"r\x00\x00\x00\x00"),
    ]
)


@settings(max_examples=800, deadline=None)
@given(st.lists(opcodes, max_size=14).map(b"".join))
@example(b"cos\nsystem\n)R")
@example(b"(cos\nsystem\no")
@example(b"(ios\nsystem\n")
@example(b"]cos\nsystem\na")
@example(b"cos\nsystem\n)\x81")
@example(b"\x8c\x02os\x8c\x06system\x93)R")
def test_nothing_that_the_unpickler_calls_is_missed(program: bytes) -> None:
    if called(program):
        assert found(program)
