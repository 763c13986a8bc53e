from __future__ import annotations

import base64
import io
import pickle
import sqlite3
import struct
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image

from tracklayer.formats import Format

Tell = Callable[..., Format]
UNKNOWN = Format("binary", "unknown")
TABLE = pa.table({"a": list(range(1000)), "b": ["x"] * 1000})

HDF5 = zlib.decompress(
    base64.b85decode(
        b"c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfCa|LNVe$!3nh{EOK<O1sFmXn(oCH){5NbZUx{x4OSCH!eXaHu92MdJeU>F"
        b"4>5qP*d27u@YC?A$ePcWgXOF>JI9u(Tk$iNCQixI|$q+~`$hyXKG9fB4BD;3~?rBw$o$qM9w#F?0w7$NBxVh%H-0W"
        b"@VxpxHcOP{#)>d||;K?C0+S%IUEDslYs%X2}5n<<>09"
    )
)
"""A data set of three numbers, as h5py 3.16 writes it."""


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10),
        np.zeros((0, 3), "f4"),
        np.array(3.5),
        np.array(["ab", "c"]),
        np.array([b"ab"]),
        np.zeros(3, "M8[ns]"),
        np.zeros(4, [("a", "i4"), ("b", "f8", (2, 3)), ("c", [("d", "S3")])]),
        np.asfortranarray(np.zeros((300, 300))),
    ],
)
def test_numpy_arrays(tell: Tell, array: np.ndarray) -> None:
    for version in ((1, 0), (2, 0), (3, 0)):
        data = io.BytesIO()
        np.lib.format.write_array(data, array, version)
        assert tell(data.getvalue()) == Format("NumPy array")
        assert tell(data.getvalue() + b"more") == Format("NumPy array")
    if array.size:
        assert tell(data.getvalue()[:-1]) == UNKNOWN


@pytest.mark.parametrize("dtype", ["O", [("a", "i4"), ("b", "O")], [("a", [("b", "O", (2,))])]])
def test_numpy_arrays_with_objects_are_pickles(tell: Tell, dtype: object) -> None:
    data = io.BytesIO()
    np.save(data, np.zeros(2, dtype))
    assert tell(data.getvalue(), "x.npy") == Format("NumPy array of objects", "pickle")


def test_a_numpy_header_that_cannot_be_read_may_hide_objects(tell: Tell) -> None:
    data = io.BytesIO()
    np.save(data, np.zeros(2, "O"))
    for old, new in ((b"(2,)", b"(2L)"), (b"'|O'", b" 7  "), (b"'descr'", b"'desc_'")):
        assert tell(data.getvalue().replace(old, new)).risk == "pickle"


def test_tables(tell: Tell, tmp_path: Path) -> None:
    file = tmp_path / "table"
    for compression in ("none", "snappy", "zstd"):
        pa.parquet.write_table(TABLE, file, compression=compression)
        assert tell(file.read_bytes()) == Format("Parquet")
    assert tell(file.read_bytes()[:-10]) == Format("Parquet, cut off", "unknown")
    pa.feather.write_feather(TABLE, file)
    assert tell(file.read_bytes()) == Format("Arrow")
    assert tell(b"FEA1" + bytes(60) + b"FEA1") == Format("Feather")
    assert tell(b"FEA1" + bytes(60)) == UNKNOWN
    pa.orc.write_table(TABLE, file)
    assert tell(file.read_bytes()) == Format("ORC")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, TABLE.schema) as stream:
        stream.write_table(TABLE)
    assert tell(file.read_bytes()) == Format("Arrow"), "as data sets of Hugging Face are cached"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as stream:
        stream.write_table(TABLE)
    assert tell(file.read_bytes()) == Format("Arrow")
    assert tell(file.read_bytes()[:-10]) == Format("Arrow, cut off", "unknown")


def test_sqlite(tell: Tell, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("CREATE TABLE t (a)")
    database.close()
    data = (tmp_path / "db").read_bytes()
    assert tell(data) == Format("SQLite")
    assert tell(data + b"x") == UNKNOWN


def test_hdf5_can_carry_a_pickle(tell: Tell) -> None:
    """pandas.read_hdf unpickles attributes, Keras builds what an attribute names."""
    form = Format("HDF5", "pickle")
    assert tell(HDF5, "data.h5") == form
    for offset in (512, 1024, 65536, 1 << 20):
        cover = b"name,value\n" * (offset // 11) + b"\n" * (offset % 11)
        assert len(cover) == offset
        assert tell(cover + HDF5 + b"\nname,value\n" * 10_000, "data.csv") == form
    assert tell(b"\n" * 700 + HDF5) == UNKNOWN


def test_matlab(tell: Tell) -> None:
    data = io.BytesIO()
    scipy.io.savemat(data, {"a": np.arange(3)})
    assert tell(data.getvalue()) == Format("MATLAB")


def test_idx(tell: Tell) -> None:
    data = struct.pack(">HBBII", 0, 8, 2, 10, 3) + bytes(30)
    assert tell(data, "train-images-idx3-ubyte") == Format("IDX")
    assert tell(data + b"x") == UNKNOWN
    assert tell(bytes(50)) == UNKNOWN


def test_tfrecord(tell: Tell) -> None:
    # The checksum of a length of 5, as TensorFlow writes it: masked CRC32C.
    record = struct.pack("<Q", 5) + bytes.fromhex("ea b2 04 3e") + b"hello" + bytes(4)
    assert tell(record) == Format("TFRecord")
    assert tell(b"\x06" + record[1:]) == UNKNOWN


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WebP", "BMP", "TIFF", "ICO", "PPM"])
def test_pictures(tell: Tell, kind: str) -> None:
    data = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(data, kind)
    expected = {"ICO": "icon", "PPM": "netpbm"}.get(kind, kind)
    assert tell(data.getvalue(), "file.txt") == Format(expected)


def test_sound(tell: Tell) -> None:
    data = io.BytesIO()
    with wave.open(data, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1000))
    assert tell(data.getvalue()) == Format("WAV")
    frame = b"\xff\xfb\x90\x00" + bytes(413)
    assert tell(frame * 3) == Format("MP3")
    assert tell(frame[:200] * 3) == UNKNOWN


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"fLaC\0\0\0\x22" + bytes(40), "FLAC"),
        (b"OggS\0\2" + bytes(40), "Ogg"),
        (b"ID3\4\0" + bytes(40), "MP3"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "MP4"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\x82\x84webm" + bytes(40), "Matroska"),
        (b"RIFF\x10\0\0\0AVI LIST" + bytes(40), "AVI"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(40), "PDF"),
        (b"Obj\1\4\x16avro.schema\xa6\1{}" + bytes(40), "Avro"),
        (bytes(128) + b"DICM\2\0" + bytes(40), "DICOM"),
    ],
)
def test_other_beginnings(tell: Tell, data: bytes, name: str) -> None:
    assert tell(data) == Format(name)


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"X\n\0\0\0\2\0\4\3\0\0\2\3\0", Format("R data", "pickle")),
        (b"RDX3\nX\n\0\0\0\3", Format("R data", "pickle")),
        (b"RDA3\nA\n3\n262657\n", Format("R data", "pickle")),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", Format("PostScript", "code")),
        (b"7z\xbc\xaf\x27\x1c\0\4", Format("7-Zip archive", "unknown")),
        (b"Rar!\x1a\x07\1\0", Format("RAR archive", "unknown")),
        (b"\0\1\2\3", UNKNOWN),
    ],
)
def test_what_is_known_and_refused(tell: Tell, data: bytes, form: Format) -> None:
    assert tell(data, "data.csv") == form


def test_a_picture_with_a_pickle_behind_it_is_a_picture(tell: Tell) -> None:
    """Nothing that reads it gets there."""
    data = io.BytesIO()
    Image.new("L", (8, 8)).save(data, "PNG")
    assert tell(data.getvalue() + pickle.dumps([1])) == Format("PNG")
