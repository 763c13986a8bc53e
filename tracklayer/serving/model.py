"""What the protocols know of a model: its signature and how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class RequestError(Exception):
    """A request that is not answered: the HTTP status and what the client should know."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model.

    ``dims`` has a size for every fixed axis, and the axis's name (or an empty string) for every
    free one: ``("batch", 64)``. ``example`` is a value that the model takes, where not any would
    do: a file's content, one of a list.
    """

    name: str
    datatype: str
    dims: tuple[int | str, ...]
    example: str | float | None = None

    @property
    def shape(self) -> list[int]:
        """The shape as the Open Inference Protocol writes it: -1 for a free axis."""
        return [dim if isinstance(dim, int) else -1 for dim in self.dims]

    def metadata(self) -> dict[str, Any]:
        """The tensor in the protocol's model metadata."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in the model's order.

    ``instead`` is an input that may be given alone, in place of ``inputs``: what the model itself
    would make of them.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    instead: Tensor | None = None
    by_name: dict[str, Tensor] = field(init=False, repr=False, compare=False)
    output_names: list[str] = field(init=False, repr=False, compare=False)
    _shared: list[tuple[str, str, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        axes = [(d, t.name, i) for t in self.inputs for i, d in enumerate(t.dims)]
        named = [axis[0] for axis in axes if isinstance(axis[0], str) and axis[0]]
        shared = [
            (dim, name, axis)
            for dim, name, axis in axes
            if isinstance(dim, str) and named.count(dim) > 1
        ]
        known = (*self.inputs, self.instead) if self.instead else self.inputs
        object.__setattr__(self, "by_name", {tensor.name: tensor for tensor in known})
        object.__setattr__(self, "output_names", [tensor.name for tensor in self.outputs])
        object.__setattr__(self, "_shared", shared)

    def check(self, feeds: Mapping[str, Array]) -> None:
        """Are all inputs there, and do axes of one name have one size?

        :raises RequestError: (400) they are not.
        """
        if self.instead and self.instead.name in feeds:
            if len(feeds) > 1:
                raise RequestError(400, f"inputs: {self.instead.name!r} stands alone")
            return
        if missing := [tensor.name for tensor in self.inputs if tensor.name not in feeds]:
            raise RequestError(400, f"inputs: {', '.join(map(repr, missing))} missing")
        sizes: dict[str, tuple[int, str]] = {}
        for dim, name, axis in self._shared:
            size = feeds[name].shape[axis]
            known, owner = sizes.setdefault(dim, (size, name))
            if known != size:
                raise RequestError(
                    400,
                    f"input {name!r}: axis {axis} ({dim!r}) has size {size}, "
                    f"but it is {known} in input {owner!r}",
                )


class Call(Protocol):
    """One running inference; setting ``terminate`` from another thread ends it."""

    terminate: bool


@dataclass(slots=True)
class Flag:
    """A call that cannot be ended once it runs."""

    terminate: bool = False


class Model(Protocol):
    """A loaded model. ``run`` may be called by several threads at once.

    One with an attribute ``interruptible = True`` lets ``Call.terminate`` end a run at any moment:
    while it is cheap it may run in the event loop.
    """

    platform: str
    signature: Signature

    def call(self) -> Call:
        """A handle with which :meth:`run` can be ended."""
        ...

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        """The named outputs.

        :raises RequestError: (400) the model does not take these values, (500) it failed on them.
        """
        ...


DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""Data types of the Open Inference Protocol and how arrays hold them."""
