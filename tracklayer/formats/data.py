"""Data sets, pictures, sound: what their readers take for data and nothing else."""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from tracklayer.formats.content import HEAD, Content, Format, Risk

_HDF5 = b"\x89HDF\r\n\x1a\n"

_DTYPE = re.compile(r"[<>|=]?([?biufcmMSUVa])(\d*)(\[\w+\])?")
"""Of numpy, without objects."""

_IDX = {0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}
"""Type byte of MNIST's format -> bytes of a number."""

_MARKS = {
    "PNG": rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "JPEG": rb"\xff\xd8\xff[\xc0-\xfe]",
    "GIF": rb"GIF8[79]a",
    "WebP": rb"RIFF.{4}WEBPVP8[ LX]",
    "BMP": rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}",
    "TIFF": rb"II\*\0|MM\0\*|II\+\0\x08\0|MM\0\+\0\x08",
    "icon": rb"\0\0[\x01\x02]\0[\x01-\x40]\0..[\0-\xff]\0",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "netpbm": rb"P[1-7]\s+(#.*?\n\s*)?\d+\s",
    "DICOM": rb".{128}DICM\x02\0",
    "NIfTI": rb"\x5c\x01\0\0.{340}(n\+1|ni1)\0",
    "WAV": rb"(RIFF|RF64|RIFX).{4}WAVE[ -~]{4}",
    "FLAC": rb"fLaC[\0\x80]\0\0\x22",
    "Ogg": rb"OggS\0[\x02\x06]",
    "MP3": rb"ID3[\x02-\x04]\0",
    "AIFF": rb"FORM.{4}AIF[FC]",
    "MIDI": rb"MThd\0\0\0\x06",
    "MP4": rb"\0\0[\0-\x01].ftyp[ -~]{4}|\0\0..(moov|mdat|wide|free).{4}",
    "Matroska": rb"\x1a\x45\xdf\xa3.{1,60}\x42\x82[\x80-\x8f](matroska|webm)",
    "AVI": rb"RIFF.{4}AVI LIST",
    "ASF": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "MPEG": rb"\0\0\x01[\xba\xb3]|\x47.{187}\x47.{187}\x47",
    "PDF": rb"%PDF-[12]\.\d",
    "font": rb"\0\x01\0\0\0[\x01-\x40].{6}[ -~]{4}|OTTO\0|wOF[F2]|ttcf\0",
    "glTF": rb"glTF[\x01\x02]\0\0\0",
    "LAS": rb"LASF",
    "shapefile": rb"\0\0\x27\x0a\0{20}",
    "MATLAB": rb"MATLAB 5\.0 MAT-file.{105}(\0\x01IM|\x01\0MI)",
    "FITS": rb"SIMPLE  =  {20}T",
    "SPSS": rb"\$FL[23]@\(#\)",
    "Avro": rb"Obj\x01.{0,512}?avro\.schema",
}
"""Name -> how such a file begins."""

_REFUSED: dict[str, tuple[bytes, Risk]] = {
    "R data": (rb"(RDX[23]\n)?X\n\0\0\0[\x02\x03]|RD[AXB][23]\n|A\n[23]\n\d+\n", "pickle"),
    "PostScript": (rb"%!PS|\xc5\xd0\xd3\xc6", "code"),
    "7-Zip archive": (rb"7z\xbc\xaf\x27\x1c", "unknown"),
    "RAR archive": (rb"Rar!\x1a\x07", "unknown"),
}
"""As well; a reader runs them, or nothing here can look into them."""

_BEGINNINGS = [
    *((re.compile(mark, re.DOTALL), Format(name)) for name, mark in _MARKS.items()),
    *((re.compile(mark, re.DOTALL), Format(name, risk)) for name, (mark, risk) in _REFUSED.items()),
]


def beginning(content: Content) -> Format | None:
    """What is told by its first bytes."""
    return next((form for mark, form in _BEGINNINGS if mark.match(content.head)), None)


def hdf5(content: Content) -> Format | None:
    """A superblock where the HDF5 library looks for one, so also behind something else.

    PyTables, and so ``pandas.read_hdf``, unpickles every attribute that ends like a pickle; Keras
    imports what ``model_config`` names. What h5py does with it is harmless, but nobody can say who
    will read it.
    """
    offset = 0
    while content.has(offset + 8) and (content.size or offset < HEAD):
        if content.at(offset, 8) == _HDF5:
            return Format("HDF5", "pickle")
        offset = offset * 2 or 512
    return None


def npy(content: Content) -> Format | None:
    """A NumPy array. One of objects is a pickle behind the header."""
    head = content.head
    if not re.match(rb"\x93NUMPY[\x01-\x03]\0", head):
        return None
    width = 2 if head[6] == 1 else 4
    begin = 8 + width
    length = int.from_bytes(head[8:begin], "little")
    if length > HEAD:
        return None
    try:
        text = re.sub(rb"(\d)L\b", rb"\1", content.at(begin, length))  # of Python 2
        header = ast.literal_eval(text.decode("latin-1").strip())
        itemsize = _itemsize(header["descr"])
        size = math.prod(header["shape"]) * itemsize
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError):
        return Format("NumPy array of objects", "pickle")
    return Format("NumPy array") if content.has(begin + length + size) else None


def _itemsize(descr: Any) -> int:
    """Bytes of one element of a data type that has no objects in it.

    :raises ValueError: it may have some.
    """
    if isinstance(descr, str) and (dtype := _DTYPE.fullmatch(descr)):
        return int(dtype[2] or 1) * (4 if dtype[1] == "U" else 1)
    if isinstance(descr, list):
        return sum(_itemsize(f[1]) * math.prod(f[2] if len(f) > 2 else ()) for f in descr)
    if isinstance(descr, tuple) and len(descr) == 2:
        return _itemsize(descr[0]) * math.prod(descr[1])
    raise ValueError("objects")


def columns(content: Content) -> Format | None:
    """Parquet, Arrow and its Feather, ORC: tables with a mark at both ends."""
    head, tail = content.head, content.tail
    if head.startswith(b"PAR1"):
        footer = int.from_bytes(tail[-8:-4], "little")
        right = not tail or (tail[-4:] in (b"PAR1", b"PARE") and content.has(footer + 12))
        return Format("Parquet") if right else Format("Parquet, cut off", "unknown")
    if head.startswith(b"ARROW1\0\0"):
        right = not tail or tail.endswith(b"ARROW1")
        return Format("Arrow") if right else Format("Arrow, cut off", "unknown")
    if head.startswith(b"\xff\xff\xff\xff"):
        length = int.from_bytes(head[4:8], "little")
        root = int.from_bytes(head[8:12], "little")
        right = length % 8 == 0 and 8 <= root < length and content.has(8 + length)
        return Format("Arrow") if right else None
    if head.startswith(b"FEA1"):
        return Format("Feather") if not tail or tail.endswith(b"FEA1") else None
    if head.startswith(b"ORC"):
        return Format("ORC") if not tail or tail[-4:-1] == b"ORC" else None
    return None


def sqlite(content: Content) -> Format | None:
    """A database of SQLite, of whole pages."""
    head = content.head
    page = int.from_bytes(head[16:18], "big")
    page = 1 << 16 if page == 1 else page
    if not head.startswith(b"SQLite format 3\0") or page < 512 or page & (page - 1):
        return None
    return Format("SQLite") if content.size is None or content.size % page == 0 else None


def idx(content: Content) -> Format | None:
    """MNIST's format: type, number of axes, their lengths, and so many numbers."""
    head = content.head
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX or not 1 <= head[3] <= 8:
        return None
    begin = 4 + 4 * head[3]
    axes = [int.from_bytes(head[at : at + 4], "big") for at in range(4, begin, 4)]
    size = math.prod(axes) * _IDX[head[2]]
    return Format("IDX") if size and content.ends_at(begin + size) else None


def tfrecord(content: Content) -> Format | None:
    """TensorFlow's records: a length, its checksum, so many bytes and their checksum, ..."""
    length = int.from_bytes(content.head[:8], "little")
    if len(content.head) < 16 or not content.has(16 + length):
        return None
    checksum = _masked_crc32c(content.head[:8]).to_bytes(4, "little")
    return Format("TFRecord") if content.head[8:12] == checksum else None


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def mp3(content: Content) -> Format | None:
    """Two frames of MPEG audio, layer III, one behind the other; without a tag before them."""
    first = _frame(content.head[:4])
    second = first and _frame(content.head[first : first + 4])
    return Format("MP3") if second else None


_KBITS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates of MPEG 1 and MPEG 2, in kbit/s."""


def _frame(head: bytes) -> int:
    """Bytes of the frame with this head; 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, rate, frequency = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or not 1 <= rate <= 14 or frequency == 3:
        return 0
    kbits = _KBITS[3 if version == 3 else 2][rate - 1]
    hertz = (44100, 48000, 32000)[frequency] >> {3: 0, 2: 1, 0: 2}[version]
    return (144 if version == 3 else 72) * kbits * 1000 // hertz + (head[2] >> 1 & 1)
