"""ONNX models: told by their protobuf fields, run by onnxruntime on the CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tracklayer.errors import ModelError
from tracklayer.serving.model import Array, Call, RequestError, Signature, Tensor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_VARINT, _LENGTH = 0, 2
_FIELDS = {1: _VARINT, 5: _VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _LENGTH)
"""Field number -> wire type of ModelProto (onnx/onnx.proto)."""
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8

_TYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
} | {
    f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)
}
"""onnxruntime's element types -> the Open Inference Protocol's."""


def matches(file: Path) -> bool:
    """Has ``file`` the outline of an ONNX model? Tensors are skipped, not read.

    :raises ModelError: it is one, but ends inside its graph.
    """
    seen = set()
    size = file.stat().st_size
    with file.open("rb") as stream:
        while stream.tell() < size:
            key = _varint(stream)
            if key is None or _FIELDS.get(key >> 3) != key & 7:
                return False
            value = _varint(stream)
            if value is None or (key >> 3 == _IR_VERSION and not 1 <= value <= 1000):
                return False
            if key & 7 == _LENGTH and stream.seek(value, 1) > size:
                if key >> 3 == _GRAPH and _IR_VERSION in seen:
                    raise ModelError(
                        f"{file.name} is a damaged ONNX model: it ends inside its graph",
                        hint="Export the model again.",
                    )
                return False
            seen.add(key >> 3)
    return {_IR_VERSION, _GRAPH, _OPSET} <= seen


def load(file: Path, *, threads: int = 1) -> OnnxModel:
    """Load a model, external data beside it included.

    :raises ModelError: onnxruntime refuses it, or it has an input or output that is no tensor of
        the protocol's types.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; a log line as well would be one too many
    # Spinning threads cost the other models of the machine a core each.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(
            str(file.resolve()), options, providers=["CPUExecutionProvider"]
        )
    except _ort_errors() as error:
        raise ModelError(
            f"{file.name} cannot be loaded: {_reason(error)}", hint="Export the model again."
        ) from error
    return OnnxModel(file, session)


class OnnxModel:
    """A model in an onnxruntime session."""

    platform = "onnx_onnxv1"

    def __init__(self, file: Path, session: InferenceSession) -> None:
        from onnxruntime import RunOptions
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        self._session = session
        self._invalid: type[Exception] = InvalidArgument
        self._new_call = RunOptions
        self._errors = _ort_errors()
        self.signature = Signature(
            tuple(_tensor(file, "input", argument) for argument in session.get_inputs()),
            tuple(_tensor(file, "output", argument) for argument in session.get_outputs()),
        )

    def call(self) -> Call:
        """A handle with which a run can be ended."""
        call: Call = self._new_call()
        return call

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        """The named outputs; see :class:`tracklayer.serving.model.Model`."""
        try:
            results: list[Array] = self._session.run(outputs, feeds, call)
        except self._invalid as error:
            raise RequestError(
                400, f"the model does not take these values: {_reason(error)}"
            ) from error
        except self._errors as error:
            raise RequestError(
                500, f"the model failed on this request: {_reason(error)}"
            ) from error
        return results


def _varint(stream: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _tensor(file: Path, role: str, argument: Any) -> Tensor:
    element = re.fullmatch(r"tensor\((\w+)\)", argument.type)
    if not element or element[1] not in _TYPES:
        raise ModelError(
            f"{file.name}: {role} {argument.name!r} is a {argument.type}, which cannot be served",
            hint="Export it as a plain tensor; for scikit-learn: options={'zipmap': False}.",
        )
    dims = tuple(dim if dim is not None else "" for dim in argument.shape)
    return Tensor(argument.name, _TYPES[element[1]], dims)


def _ort_errors() -> tuple[type[Exception], ...]:
    """onnxruntime's exceptions, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [getattr(state, name) for name in dir(state)]
    return tuple(e for e in found if isinstance(e, type) and issubclass(e, Exception))


def _reason(error: Exception) -> str:
    """The sentence in onnxruntime's message, without its code and source positions."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = text.rpartition("Status Message: ")[2]
    text = re.sub(r"\S*/\S+\.(cc|h):\d+ ", "", text)
    return " ".join(text.split())[:500]
