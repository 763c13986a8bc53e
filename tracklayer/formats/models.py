"""Outlines of model files: they are followed as far as the end of the file, tensors are skipped."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from tracklayer.formats.content import HEAD, Content, Format

ONNX = Format("ONNX")
CUT_ONNX = Format("ONNX, cut off inside its graph", "unknown")
SAFETENSORS = Format("safetensors")

_SAFETENSORS_HEADER = 100_000_000
"""Longest header that the safetensors library reads, in bytes."""
_DTYPE = re.compile(r"BOOL|[BFIUC]{1,2}(\d{1,2})(_\w+)?")

_VARINT, _LENGTH = 0, 2
_ONNX = {1: _VARINT, 5: _VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _LENGTH)
"""Field number -> wire type of ModelProto (onnx/onnx.proto)."""
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_SAVED_MODEL = {1: _VARINT, 2: _LENGTH}
"""Of SavedModel (tensorflow/core/protobuf/saved_model.proto): schema version, meta graphs."""
_SENTENCEPIECE = dict.fromkeys((1, 2, 3, 4, 5), _LENGTH)
"""Of ModelProto (sentencepiece_model.proto): pieces, specs of trainer and normaliser, samples."""


def safetensors(content: Content) -> Format | None:
    """A header of JSON, and the tensors that it names, one behind the other to the file's end."""
    length = int.from_bytes(content.head[:8], "little")
    if content.head[8:9] != b"{" or length > _SAFETENSORS_HEADER or not content.has(8 + length):
        return None
    end = 0
    try:
        header = json.loads(content.at(8, length), object_pairs_hook=_unique)
        if not all(isinstance(v, str) for v in header.pop("__metadata__", {}).values()):
            return None
        for begin, stop, bits in sorted(map(_tensor, header.values())):
            if begin != end or stop - begin != (bits + 7) // 8:
                return None
            end = stop
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return SAFETENSORS if content.ends_at(8 + length + end) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice: readers differ in which one counts")
    return found


def _tensor(entry: dict[str, Any]) -> tuple[int, int, int]:
    """Where a tensor begins and ends, in bytes behind the header, and how many bits it has."""
    begin, end = entry["data_offsets"]
    dtype = _DTYPE.fullmatch(entry["dtype"])
    if dtype is None or not all(type(n) is int and n >= 0 for n in (begin, end, *entry["shape"])):
        raise ValueError("no tensor")
    return begin, end, math.prod(entry["shape"]) * int(dtype[1] or 8)


def onnx(content: Content) -> Format | None:
    """The fields of ModelProto to the file's end."""
    seen = set()
    for field, value, end in _fields(content, _ONNX):
        if field is None or (field == _IR_VERSION and not 1 <= value <= 1000):
            return None
        if not content.has(end):
            return CUT_ONNX if field == _GRAPH and _IR_VERSION in seen else None
        seen.add(field)
    return ONNX if {_IR_VERSION, _GRAPH, _OPSET} <= seen else None


def saved_model(content: Content) -> Format | None:
    """The fields of TensorFlow's SavedModel. A graph can read and write files."""
    if content.head[:1] != b"\x08":
        return None
    seen = set()
    for field, _value, end in _fields(content, _SAVED_MODEL):
        if field is None or not content.has(end):
            return None
        seen.add(field)
    return Format("TensorFlow SavedModel", "code") if seen == {1, 2} else None


def sentencepiece(content: Content) -> Format | None:
    """The pieces of a tokenizer of SentencePiece, as far as the head has them."""
    if not re.match(rb"\n.\n.", content.head, re.DOTALL):
        return None
    pieces = 0
    for field, _value, end in _fields(content, _SENTENCEPIECE):
        if field is None or not content.has(end):
            return None
        pieces += field == 1
        if end > HEAD:
            break
    return Format("SentencePiece") if pieces > 3 else None


def _fields(content: Content, wires: Mapping[int, int]) -> Iterator[tuple[int | None, int, int]]:
    """The fields of a protobuf message: number, value or length, and where it ends; the number is
    None, and the last, for a field that the message does not have."""
    position = 0
    while content.at(position, 1):
        key, position = _varint(content, position)
        value, position = _varint(content, position)
        if min(key, value) < 0 or wires.get(key >> 3) != key & 7:
            yield None, value, position
            return
        if key & 7 == _LENGTH:
            position += value
        yield key >> 3, value, position


def _varint(content: Content, position: int) -> tuple[int, int]:
    """A number, and where it ends; -1 if it does not."""
    data = content.at(position, 10)
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    return -1, position + len(data)


def gguf(content: Content) -> Format | None:
    """A header of llama.cpp's format, and the beginning of its first key."""
    head = content.head
    if not head.startswith(b"GGUF") or len(head) < 32:
        return None
    big = head[4:6] == b"\0\0"
    version, tensors, pairs, key = struct.unpack_from(">IQQQ" if big else "<IQQQ", head, 4)
    right = version in (2, 3) and content.has(tensors * 24 + pairs * 13) and 0 < key < 1 << 16
    return Format("GGUF") if right else None


def other(content: Content) -> Format | None:
    """Models of which an outline of the first bytes has to do."""
    head = content.head
    if head[4:8] == b"TFL3" and content.has(int.from_bytes(head[:4], "little") + 4):
        return Format("TensorFlow Lite")
    if head.startswith(b"CBM1") and content.has(8 + int.from_bytes(head[4:8], "little")):
        return Format("CatBoost")
    if re.match(rb"\{L.{8}learner|binf", head, re.DOTALL):
        return Format("XGBoost")
    if head.startswith(b"\xba\x16\x4f\x2f"):
        return Format("fastText")
    return None
