"""Model files of other tools, told by their first bytes, so that a refusal says what was found.

Nothing here decides what is loaded: a file that no served format claims is refused in any case.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

_HEAD = 4096
"""Bytes that are looked at."""

_COMPRESSED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda data: zlib.decompressobj(31).decompress(data, _HEAD),
    b"x": lambda data: zlib.decompressobj().decompress(data, _HEAD),
    b"BZh": lambda data: bz2.BZ2Decompressor().decompress(data, _HEAD),
    b"\xfd7zXZ": lambda data: lzma.LZMADecompressor().decompress(data, _HEAD),
}

_PICKLE = re.compile(
    rb"\x80[\x02-\x05]|c[\w.]+\n\w+\n[pq(]|\([dl]p\d|\(i[\w.]+\n\w+\n|[}\]]q[\x00-\xff]"
)

_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (Keras)",
    b"GGUF": "a GGUF model (llama.cpp)",
    b"\x93NUMPY": "a NumPy array",
    b"tree\nversion=": "a LightGBM model",
    b"CBM1": "a CatBoost model",
}


def describe(file: Path) -> str | None:
    """What another tool's model file is, with its article; None when it is not known."""
    if file.name == "MLmodel":
        return "an MLflow model"
    if file.name == "saved_model.pb":
        return "a TensorFlow SavedModel"
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if zipfile.is_zipfile(file):
        return _zip(file)
    if _is_pickle(head):
        return "a pickle (pickle, joblib or torch.save), which can run any code when it is loaded"
    for magic, expand in _COMPRESSED.items():
        if head.startswith(magic):
            try:
                inside = expand(head)
            except (OSError, zlib.error, lzma.LZMAError):
                continue
            if _is_pickle(inside):
                return "a compressed pickle (joblib), which can run any code when it is loaded"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size:
        return "a safetensors file (weights without the model)"
    return None


def _zip(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return None
    if any(name.endswith("constants.pkl") for name in names):
        return "a TorchScript archive"
    if any(name.endswith(".pkl") for name in names):
        return "a pickle in an archive (torch.save), which can run any code when it is loaded"
    if "model.weights.h5" in names:
        return "a Keras model"
    if "schema.json" in names:
        return "a skops model"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays"
    return None


def _is_pickle(head: bytes) -> bool:
    """Does ``head`` begin like a pickle? Protocols 2 to 5 have a mark, 0 and 1 a few openings."""
    return bool(_PICKLE.match(head))
