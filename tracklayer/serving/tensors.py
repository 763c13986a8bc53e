"""JSON data to arrays and back, strictly: no cast, no guess, no value that JSON cannot carry."""

from __future__ import annotations

import math
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
_JSON = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
_JSON |= {int: "integer", float: "number"}
_RANK = 32
"""Axes that an array may have."""


def decode(tensor: Tensor, shape: object, data: object, field: str) -> Array:
    """The array of ``shape`` from ``data``: nested lists, or one flat list in row-major order.

    :param field: what the message of a refusal calls the data.
    :raises RequestError: (400) wrong shape, type, range, count; ragged; not finite.
    """
    sizes = _sizes(tensor, shape, field)
    if type(data) is not list:
        raise RequestError(400, f"{field}: data must be an array, not {_kind(data)}")
    flat = _flatten(data, sizes, field) if data and type(data[0]) is list else data
    if len(flat) != math.prod(sizes):
        raise RequestError(
            400, f"{field}: shape {sizes} needs {math.prod(sizes)} values, data has {len(flat)}"
        )
    accepted = _ACCEPTED[tensor.datatype]
    if not accepted.issuperset(map(type, flat)):
        index = next(i for i, value in enumerate(flat) if type(value) not in accepted)
        raise RequestError(
            400,
            f"{field}: value {index} of data is of type {_kind(flat[index])}, "
            f"which {tensor.datatype} does not take",
        )
    try:
        with np.errstate(over="ignore"):
            array: Array = np.array(flat, dtype=DATATYPES[tensor.datatype])
        fits = tensor.datatype not in _FLOATS or bool(np.isfinite(array).all())
    except OverflowError:
        fits = False
    if not fits:
        raise RequestError(400, f"{field}: a value of data is out of range for {tensor.datatype}")
    return array.reshape(sizes)


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
    if tensor.datatype in _FLOATS and not np.isfinite(array).all():
        raise RequestError(
            500,
            f"the model's output {tensor.name!r} holds NaN or infinity, which JSON cannot carry",
        )
    # orjson writes neither arrays of objects nor arrays without an axis.
    return array.tolist() if tensor.datatype == "BYTES" or not array.ndim else array


def _sizes(tensor: Tensor, shape: object, field: str) -> list[int]:
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise RequestError(400, f"{field}: shape must be an array of integers, zero or more")
    sizes: list[int] = shape
    if len(sizes) != len(tensor.dims) or any(
        type(dim) is int and dim != size for dim, size in zip(tensor.dims, sizes, strict=True)
    ):
        raise RequestError(400, f"{field}: shape {sizes[:_RANK]} does not fit {tensor.shape}")
    return sizes


def _flatten(data: list[Any], sizes: list[int], field: str) -> list[Any]:
    groups: list[Any] = [data]
    for axis, size in enumerate(sizes):
        if set(map(type, groups)) - {list} or set(map(len, groups)) - {size}:
            raise RequestError(
                400, f"{field}: data is not nested as shape {sizes} says (axis {axis})"
            )
        groups = list(chain.from_iterable(groups))
    return groups


def _kind(value: object) -> str:
    return _JSON.get(type(value), type(value).__name__)
