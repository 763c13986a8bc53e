"""JSON data to arrays and back, strictly: no cast, no guess, no value that JSON cannot carry."""

from __future__ import annotations

import math
import struct
from itertools import chain
from typing import Any

import numpy as np

from tracklayer.serving.model import DATATYPES, Array, RequestError, Tensor

_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_ACCEPTED: dict[str, frozenset[type]] = {
    name: frozenset({bool})
    if name == "BOOL"
    else frozenset({str})
    if name == "BYTES"
    else frozenset({int, float})
    if name in _FLOATS
    else frozenset({int})
    for name in DATATYPES
}
_CODES = {
    name: dtype.char if dtype.itemsize < 8 else {"i": "q", "u": "Q", "f": "d"}[dtype.kind]
    for name, dtype in DATATYPES.items()
    if dtype.kind in "iuf"
}
"""How :mod:`struct` calls the numbers. It packs a list faster than NumPy, and minds the range."""
_JSON = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
_JSON |= {int: "integer", float: "number"}
_RANK = 32
"""Axes that an array may have."""
_EMPTY = 4096
"""Size of an axis of a tensor without values: nothing was sent for it, but outputs may have it."""


def decode(tensor: Tensor, shape: object, data: object, field: str) -> Array:
    """The array of ``shape`` from ``data``: nested lists, or one flat list in row-major order.

    Floats must be finite, as JSON's are; who reads others looks with :func:`check_finite`.

    :param field: what the message of a refusal calls the data.
    :raises RequestError: (400) wrong shape, type, range, count; ragged.
    """
    sizes = sizes_of(tensor, shape, field)
    if type(data) is not list:
        raise RequestError(400, f"{field}: data must be an array, not {_kind(data)}")
    flat = _flatten(data, sizes, field) if data and type(data[0]) is list else data
    count = math.prod(sizes)
    if len(flat) != count:
        raise RequestError(
            400, f"{field}: shape {sizes} needs {count} values, data has {len(flat)}"
        )
    accepted = _ACCEPTED[tensor.datatype]
    if not accepted.issuperset(map(type, flat)):
        index = next(i for i, value in enumerate(flat) if type(value) not in accepted)
        raise RequestError(
            400,
            f"{field}: value {index} of data is of type {_kind(flat[index])}, "
            f"which {tensor.datatype} does not take",
        )
    dtype = DATATYPES[tensor.datatype]
    if tensor.datatype not in _CODES:
        return np.array(flat, dtype).reshape(sizes)
    try:
        packed = struct.pack(f"={count}{_CODES[tensor.datatype]}", *flat)
    except (struct.error, OverflowError) as error:
        raise RequestError(
            400, f"{field}: a value of data is out of range for {tensor.datatype}"
        ) from error
    return np.ndarray(sizes, dtype, bytearray(packed))


def sizes_of(tensor: Tensor, shape: object, field: str) -> list[int]:
    """The shape that a request gives to a tensor, if it is one and fits.

    :raises RequestError: (400) it is not, or does not.
    """
    # Loops, because a generator takes longer to make than to run over the axes of a tensor.
    if type(shape) is not list:
        raise RequestError(400, f"{field}: shape must be an array of integers, zero or more")
    for size in shape:
        if type(size) is not int or size < 0:
            raise RequestError(400, f"{field}: shape must be an array of integers, zero or more")
    sizes: list[int] = shape
    fits = len(sizes) == len(tensor.dims)
    for dim, size in zip(tensor.dims, sizes, strict=False):
        fits = fits and (dim == size or type(dim) is str)
    if not fits:
        raise RequestError(400, f"{field}: shape {sizes[:_RANK]} does not fit {tensor.shape}")
    if 0 in sizes and max(sizes) > _EMPTY:
        raise RequestError(
            400, f"{field}: shape {sizes} has no value, and an axis larger than {_EMPTY}"
        )
    return sizes


def shape_of(data: object, field: str) -> list[int]:
    """The shape of nested lists, read along the first items; :func:`decode` checks the others.

    :raises RequestError: (400) nested deeper than an array can be.
    """
    shape: list[int] = []
    while type(data) is list:
        shape.append(len(data))
        if len(shape) > _RANK:
            raise RequestError(400, f"{field}: nested deeper than {_RANK} levels")
        data = data[0] if data else None
    return shape


def check_finite(tensor: Tensor, array: Array, field: str) -> None:
    """Refuse what JSON has no word for, from whichever protocol: a model sees the same of all.

    :raises RequestError: (400) a float is NaN or infinite.
    """
    if tensor.datatype in _FLOATS and not _finite(array):
        raise RequestError(400, f"{field}: a value of data is NaN or infinite")


def encode(tensor: Tensor, array: Array) -> dict[str, Any]:
    """The protocol's JSON object of one output; ``data`` flat, in row-major order."""
    return {
        "name": tensor.name,
        "shape": array.shape,
        "datatype": tensor.datatype,
        "data": values(tensor, array.ravel()),
    }


def values(tensor: Tensor, array: Array) -> object:
    """What orjson (with its NumPy option) writes as the values of an output.

    :raises RequestError: (500) the model gave a value that JSON cannot carry.
    """
    if tensor.datatype in _FLOATS and not _finite(array):
        raise RequestError(
            500,
            f"the model's output {tensor.name!r} holds NaN or infinity, which JSON cannot carry",
        )
    # orjson writes no arrays of objects, none without an axis, and none in another order than C's.
    if tensor.datatype == "BYTES" or not array.ndim:
        return array.tolist()
    return np.ascontiguousarray(array)


def own(array: Array) -> Array:
    """The array, as code may have it that computes in place: what came as bytes is read-only."""
    return array if array.flags.writeable else array.copy()


def _finite(array: Array) -> bool:
    return bool(np.count_nonzero(np.isfinite(array)) == array.size)


def _flatten(data: list[Any], sizes: list[int], field: str) -> list[Any]:
    groups: list[Any] = [data]
    for axis, size in enumerate(sizes):
        if set(map(type, groups)) - {list} or set(map(len, groups)) - {size}:
            raise RequestError(400, f"{field}: {_unlike(groups, sizes, axis)}")
        groups = list(chain.from_iterable(groups))
    return groups


def _unlike(groups: list[Any], sizes: list[int], axis: int) -> str:
    """Which of the lists on an axis is not nested as the shape says, and how it is."""
    size = sizes[axis]
    index = next(
        i for i, group in enumerate(groups) if type(group) is not list or len(group) != size
    )
    group = groups[index]
    place: list[int] = []
    for length in reversed(sizes[:axis]):
        index, rest = divmod(index, length)
        place.insert(0, rest)
    where = "data" + "".join(f"[{number}]" for number in place)
    is_ = f"has {len(group)} values" if type(group) is list else f"is of type {_kind(group)}"
    return f"{where} {is_}, shape {sizes} needs {size} there"


def _kind(value: object) -> str:
    return _JSON.get(type(value), type(value).__name__)
