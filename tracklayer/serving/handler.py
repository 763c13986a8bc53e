"""A project's own code in front of its model: ``handler.py`` in the model folder.

::

    signature = {                                            # may be left out: see below
        "inputs": {"length": ("FP64", ["batch"])},
        "outputs": {"area": ("FP64", ["batch"])},
    }

    def load(folder: pathlib.Path) -> None: ...              # once, before the first request
    def predict(inputs: dict[str, numpy.ndarray]) -> dict[str, numpy.ndarray]: ...

The data types are those of the Open Inference Protocol; BYTES are arrays of ``str``. An axis is a
size, or a name (or -1) where it may have any. ``predict`` is called once at a time. Without a
``signature`` the one of the request in ``golden.json`` is taken, and of the answer to it.

It is loaded only where the project allows ``code``: it can do whatever the server can.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.model import DATATYPES, Array, Call, Flag, RequestError, Signature, Tensor
from tracklayer.serving.tensors import own

log = logging.getLogger(__name__)

FILE = "handler.py"
_NAME = "handler"
_SIZE = 1 << 20
_FUNCTIONS = re.compile(rb"^def (load|predict)\b", re.MULTILINE)
_FORM = '{"inputs": {"x": ("FP32", ["batch", 4])}, "outputs": {"y": ("FP32", ["batch"])}}'


def find(files: Sequence[Path]) -> list[Path]:
    """The ``handler.py`` among ``files`` that define ``load`` and ``predict``."""
    return [file for file in files if file.name == FILE and _is_handler(file)]


def needs(_path: Path) -> frozenset[str]:
    """What a project must have allowed for this format."""
    return frozenset({"code"})


def load(path: Path, *, threads: int = 1) -> HandlerModel:  # noqa: ARG001 - it is free code
    """Run a handler and its ``load``.

    :raises ModelError: it cannot be run, or its signature is wrong or missing.
    """
    module = _run(path)
    declared = getattr(module, "signature", None)
    if declared is not None:
        return HandlerModel(module.predict, _signature(declared))
    return _from_golden(module, path.parent)


class HandlerModel:
    """A project's ``predict``, between checked inputs and checked outputs."""

    platform = "python_handler"

    def __init__(self, predict: Any, signature: Signature) -> None:
        self._predict = predict
        self._lock = Lock()
        self.signature = signature

    def call(self) -> Call:
        """A handle that does nothing: a prediction cannot be ended."""
        return Flag()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], _call: Call) -> list[Array]:
        """The named outputs; see :class:`tracklayer.serving.model.Model`."""
        answer = self.ask(feeds)
        if missing := [name for name in self.signature.output_names if name not in answer]:
            known = ", ".join(map(str, answer)) or "nothing"
            raise _wrong(f"did not return {', '.join(missing)}, but {known}")
        tensors = {tensor.name: tensor for tensor in self.signature.outputs}
        return [_checked(tensors[name], answer[name]) for name in outputs]

    def ask(self, feeds: Mapping[str, Array]) -> Mapping[Any, Any]:
        """What ``predict`` returns.

        :raises RequestError: (500) it failed, or returned no mapping.
        """
        try:
            with self._lock:
                answer = self._predict({name: own(array) for name, array in feeds.items()})
        except (Exception, SystemExit) as error:
            log.exception("%s failed", FILE)
            raise RequestError(
                500, f"the model failed on this request: {type(error).__name__} in {FILE}"
            ) from error
        if not isinstance(answer, Mapping):
            raise _wrong(f"returned a {type(answer).__name__}, not a dict of arrays")
        return answer


def _is_handler(file: Path) -> bool:
    with file.open("rb") as stream:
        return set(_FUNCTIONS.findall(stream.read(_SIZE))) == {b"load", b"predict"}


def _run(path: Path) -> ModuleType:
    spec = spec_from_file_location(_NAME, path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    with _importable(path.parent, module):
        try:
            spec.loader.exec_module(module)
            module.load(path.parent)
        except (Exception, SystemExit) as error:
            log.exception("%s cannot be loaded", FILE)
            raise ModelError(
                f"{FILE} cannot be loaded: {type(error).__name__}: {error}",
                hint="It runs with the server's packages; its log has the whole trace.",
            ) from error
    return module


@contextmanager
def _importable(folder: Path, module: ModuleType) -> Iterator[None]:
    """A handler may import what lies beside it, and the next one other modules of these names."""
    sys.path.insert(0, str(folder))
    sys.modules[_NAME] = module
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        inside = str(folder.resolve())
        for name, each in list(sys.modules.items()):
            file = getattr(each, "__file__", None)
            if each is module or (file and Path(file).resolve().is_relative_to(inside)):
                del sys.modules[name]


def _signature(declared: Any) -> Signature:
    try:
        inputs, outputs = (
            tuple(_tensor(name, *described) for name, described in declared[role].items())
            for role in ("inputs", "outputs")
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{FILE}: its signature is wrong: {error}", hint=f"As in {_FORM}"
        ) from error
    if not inputs or not outputs:
        raise ModelError(
            f"{FILE}: its signature has no inputs or no outputs", hint=f"As in {_FORM}"
        )
    return Signature(inputs, outputs)


def _tensor(name: str, datatype: str, shape: Sequence[int | str]) -> Tensor:
    if datatype not in DATATYPES:
        raise ValueError(f"{name!r} is of the type {datatype!r}; types: {', '.join(DATATYPES)}")
    for size in shape:
        if type(size) not in (int, str) or (isinstance(size, int) and size < -1):
            raise ValueError(f"{name!r} has an axis {size!r}, which is no size and no name")
    return Tensor(str(name), datatype, tuple("" if size == -1 else size for size in shape))


def _from_golden(module: ModuleType, folder: Path) -> HandlerModel:
    from tracklayer.serving.tensors import decode
    from tracklayer.serving.verification import FILE as GOLDEN
    from tracklayer.serving.verification import declared

    document = declared(folder)
    if document is None:
        raise ModelError(
            f"{FILE} has no signature", hint=f"Write signature = {_FORM}, or put a {GOLDEN} there."
        )
    feeds: dict[str, Array] = {}
    inputs = []
    try:
        for item in document["inputs"]:
            free = ["batch", *item["shape"][1:]] if item["shape"] else []
            inputs.append(_tensor(item["name"], item["datatype"], free))
            feeds[item["name"]] = decode(inputs[-1], item["shape"], item["data"], item["name"])
        answer = HandlerModel(module.predict, Signature((), ())).ask(feeds)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{GOLDEN}: its inputs are wrong: {error!r}") from error
    except RequestError as error:
        raise ModelError(f"{GOLDEN}: {error.message}") from error
    outputs = []
    for name, value in answer.items():
        array = np.asarray(value)
        kind = "BYTES" if array.dtype.kind in "UO" else None
        kind = kind or next((n for n, d in DATATYPES.items() if d == array.dtype), None)
        if kind is None:
            raise ModelError(f"{FILE}: predict returned {name!r} as {array.dtype}")
        outputs.append(Tensor(str(name), kind, ("",) * array.ndim))
    return HandlerModel(module.predict, Signature(tuple(inputs), tuple(outputs)))


def _checked(tensor: Tensor, value: Any) -> Array:
    """
    :raises RequestError: (500) it is not what the signature promises.
    """
    try:
        array = np.asarray(value)
        if tensor.datatype == "BYTES":
            array = array.astype(object)
            odd = {type(each).__name__ for each in array.flat if not isinstance(each, str)}
            if odd:
                raise _wrong(f"returned {tensor.name!r} with a {min(odd)}, not a str")
        array = array.astype(DATATYPES[tensor.datatype], casting="same_kind", copy=False)
    except (TypeError, ValueError) as error:
        kind = getattr(value, "dtype", type(value).__name__)
        raise _wrong(f"returned {tensor.name!r} as {kind}, not {tensor.datatype}") from error
    fits = array.ndim == len(tensor.dims) and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(tensor.dims, array.shape, strict=True)
    )
    if not fits:
        raise _wrong(f"returned {tensor.name!r} of shape {list(array.shape)}, not {tensor.shape}")
    return array


def _wrong(what: str) -> RequestError:
    log.error("%s: predict %s", FILE, what)
    return RequestError(500, f"the model failed on this request: predict of {FILE} {what}")
