"""Tensors as bytes, as the binary tensor data extension and gRPC's raw contents carry them.

Little-endian, row-major, without padding; a BOOL is a byte, 0 or 1; an element of BYTES is its
length in four bytes and then that many bytes of UTF-8.

Source: ``docs/protocol/extension_binary_data.md`` of Triton Inference Server.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import numpy as np

from tracklayer.serving.http import Headers, Reply
from tracklayer.serving.model import DATATYPES, Array, RequestError, Tensor
from tracklayer.serving.tensors import check_finite, sizes_of

EXTENSION = "binary_tensor_data"
"""What the server's metadata calls it."""

SIZE = "binary_data_size"
"""Parameter of an input or output: it has so many bytes after the JSON, in the order of tensors."""

_HEADER = b"inference-header-content-length"
_LENGTH = struct.Struct("<I")


class Blobs:
    """The bytes behind the JSON, taken from front to back."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: object, field: str) -> memoryview:
        """The next ``size`` bytes.

        :raises RequestError: (400) no size, or fewer bytes are left.
        """
        if type(size) is not int or size < 0:
            raise RequestError(400, f"{field}: {SIZE} must be an integer, zero or more")
        left = len(self._data)
        if size > left:
            raise RequestError(400, f"{field}: {SIZE} is {size}, but {left} bytes are left")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def end(self) -> None:
        """
        :raises RequestError: (400) some are left.
        """
        if left := len(self._data):
            raise RequestError(
                400,
                f"{left} bytes after the JSON belong to no input; each input's {SIZE} says how "
                f"many are its own",
            )


NOTHING = Blobs(memoryview(b""))
"""Behind JSON alone."""


def split(body: bytes, headers: Headers) -> tuple[bytes, Blobs]:
    """The JSON of a request, and the bytes behind it.

    :raises RequestError: (400) the header does not say where the JSON ends.
    """
    header = headers.get(_HEADER)
    if header is None:
        return body, NOTHING
    name = _HEADER.decode()
    # A number of many digits is slow to read; no length has so many.
    if not header.isdigit() or len(header) > 19:
        raise RequestError(400, f"header {name}: must be the number of bytes of the JSON")
    length = int(header)
    if not 0 < length <= len(body):
        raise RequestError(
            400, f"header {name}: the JSON cannot have {length} bytes, the body has {len(body)}"
        )
    return body[:length], Blobs(memoryview(body)[length:])


def join(document: bytes, blobs: Iterable[bytes | memoryview]) -> Reply:
    """The reply of a JSON document with bytes behind it."""
    return Reply(
        200,
        b"".join([document, *blobs]),
        "application/octet-stream",
        {_HEADER.decode(): str(len(document))},
    )


def decode(tensor: Tensor, shape: object, data: memoryview, field: str) -> Array:
    """The array of ``shape`` from its bytes, read-only; not copied where they lie aligned.

    :raises RequestError: (400) wrong shape, number of bytes, or value.
    """
    sizes = sizes_of(tensor, shape, field)
    count = math.prod(sizes)
    if tensor.datatype == "BYTES":
        return np.array(_texts(data, count, field), dtype=object).reshape(sizes)
    dtype = DATATYPES[tensor.datatype]
    if len(data) != count * dtype.itemsize:
        raise RequestError(
            400,
            f"{field}: shape {sizes} of {tensor.datatype} needs {count * dtype.itemsize} bytes, "
            f"there are {len(data)}",
        )
    array: Array = np.require(np.ndarray(sizes, dtype, data), requirements="A")
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise RequestError(400, f"{field}: a byte of BOOL is neither 0 nor 1")
    check_finite(tensor, array, field)
    return array


def encode(tensor: Tensor, array: Array) -> bytes | memoryview:
    """The bytes of an output; they are the array's own where they lie in order."""
    if tensor.datatype == "BYTES":
        texts = bytes_of(array)
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    plain = np.ascontiguousarray(array, DATATYPES[tensor.datatype])
    return plain.reshape(-1).view(np.uint8).data


def bytes_of(array: Array) -> list[bytes]:
    """The elements of an output of type BYTES, which a model gives as strings or as bytes."""
    elements = array.ravel().tolist()
    return [each if isinstance(each, bytes) else str(each).encode() for each in elements]


def _texts(data: memoryview, count: int, field: str) -> list[str]:
    if count * _LENGTH.size > len(data):
        raise RequestError(
            400,
            f"{field}: {count} elements of BYTES need {_LENGTH.size} bytes each for their lengths, "
            f"there are {len(data)}",
        )
    texts: list[str] = []
    start = 0
    for index in range(count):
        end = start + _LENGTH.size
        if end > len(data):
            raise RequestError(400, f"{field}: the bytes end before element {index} of {count}")
        start, end = end, end + _LENGTH.unpack_from(data, start)[0]
        if end > len(data):
            raise RequestError(
                400, f"{field}: element {index} has {end - start} bytes, {len(data) - start} follow"
            )
        try:
            texts.append(str(data[start:end], "utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(400, f"{field}: element {index} is not UTF-8") from error
        start = end
    if start != len(data):
        raise RequestError(
            400, f"{field}: {len(data) - start} bytes follow the last of {count} elements"
        )
    return texts
