"""ONNX models, run by onnxruntime: on the processor, or on the accelerator they were made for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer.errors import ModelError
from tracklayer.formats import CUT_ONNX, ONNX, recognise_file
from tracklayer.serving import nvidia
from tracklayer.serving.model import Array, Call, RequestError, Signature, Tensor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

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


def find(files: Sequence[Path]) -> list[Path]:
    """The ONNX models among ``files``.

    :raises ModelError: one of them ends inside its graph.
    """
    kinds = {file: recognise_file(file) for file in files}
    for file, kind in kinds.items():
        if kind == CUT_ONNX:
            raise ModelError(
                f"{file.name} is a damaged ONNX model: it ends inside its graph",
                hint="Export the model again.",
            )
    return [file for file, kind in kinds.items() if kind == ONNX]


def load(file: Path, *, threads: int = 1) -> OnnxModel:
    """Load a model, external data beside it included.

    :raises ModelError: onnxruntime refuses it, or it has an input or output that is no tensor of
        the protocol's types, or it was made for an accelerator that is not here.
    """
    return open_graph(str(file.resolve()), file.name, threads=threads)


def open_graph(
    graph: str | bytes, name: str, *, threads: int = 1, tensors: Mapping[str, Array] | None = None
) -> OnnxModel:
    """A model from a file's path, or from memory.

    :param name: what the messages call it.
    :param tensors: those that the graph says lie outside of it; they are copied.
    :raises ModelError: as :func:`load`.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; a log line as well would be one too many
    # Spinning threads cost the other models of the machine a core each.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if tensors:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
        options.add_external_initializers(list(tensors), values)
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except _ort_errors() as error:
        raise ModelError(
            f"{name} cannot be loaded: {_reason(error)}", hint="Export the model again."
        ) from error
    model = OnnxModel(name, session)
    if provider := nvidia.provider_of(session):
        path = Path(os.fsdecode(graph))
        session = nvidia.opened(path, provider, options, model.signature)
        # A run there cannot be ended at any moment, and takes little time of the processor.
        return OnnxModel(name, session, interruptible=False)
    return model


class OnnxModel:
    """A model in an onnxruntime session."""

    platform = "onnx_onnxv1"

    def __init__(self, name: str, session: InferenceSession, *, interruptible: bool = True) -> None:
        from onnxruntime import RunOptions
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        self.interruptible = interruptible
        self._session = session
        self._invalid: type[Exception] = InvalidArgument
        self._new_call = RunOptions
        self._errors = _ort_errors()
        self.signature = Signature(
            tuple(_tensor(name, "input", argument) for argument in session.get_inputs()),
            tuple(_tensor(name, "output", argument) for argument in session.get_outputs()),
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


def _tensor(name: str, role: str, argument: Any) -> Tensor:
    element = re.fullmatch(r"tensor\((\w+)\)", argument.type)
    if not element or element[1] not in _TYPES:
        raise ModelError(
            f"{name}: {role} {argument.name!r} is a {argument.type}, which cannot be served",
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
