"""OpenVINO IR, ``<name>.xml`` with its weights in ``<name>.bin``, run on the CPU."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from tracklayer.errors import ModelError
from tracklayer.serving.model import Array, Call, RequestError, Signature, Tensor

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest

SIGNATURE = ["tracklayer", "signature"]
"""Where an IR keeps what OpenVINO has no place for or changes: JSON, the name of every input and
output in their order -> its ``dims``, with the names of free axes."""

_TYPES = {"boolean": "BOOL", "f16": "FP16", "f32": "FP32", "f64": "FP64"} | {
    f"{sign}{bits}": f"{kind}{bits}"
    for sign, kind in (("i", "INT"), ("u", "UINT"))
    for bits in (8, 16, 32, 64)
}
"""OpenVINO's element types -> the Open Inference Protocol's."""

_HEAD = 512
_NET = re.compile(rb'\s*(<\?xml [^>]*\?>\s*)?<net [^>]*\bversion="\d+"')

_PARALLEL = 2
"""Inferences that run at the same time: as many as the server has workers. Others wait."""


def find(files: Sequence[Path]) -> list[Path]:
    """The IRs among ``files``.

    :raises ModelError: one of them has no weights beside it.
    """
    found = [file for file in files if file.suffix == ".xml" and _is_ir(file)]
    for file in found:
        if file.with_suffix(".bin") not in files:
            raise ModelError(
                f"{file.name} is an OpenVINO model without its weights {file.stem}.bin",
                hint="Leave both files in SM_MODEL_DIR: openvino.save_model writes them together.",
            )
    return found


def load(file: Path, *, threads: int = 1) -> OpenVinoModel:
    """Load a model, to be run in the precision that it has: FP32 stays FP32.

    :raises ModelError: OpenVINO is not installed or refuses it, or it has an input or output that
        is no tensor of the protocol's types.
    """
    try:
        import openvino
        from openvino import properties
        from openvino.properties import hint
    except ImportError as error:
        raise ModelError(
            f"{file.name} is an OpenVINO model, and OpenVINO is not installed",
            hint="pip install 'tracklayer[openvino]'",
        ) from error
    options = {
        hint.performance_mode(): hint.PerformanceMode.LATENCY,
        hint.inference_precision(): openvino.Type.f32,
        # A stream runs one inference at a time, with its share of the threads.
        properties.num_streams(): _PARALLEL,
        properties.inference_num_threads(): _PARALLEL * threads,
        hint.enable_cpu_pinning(): False,  # the cores are for all models of the machine
    }
    try:
        core = openvino.Core()
        model = core.read_model(file)
        known = (
            json.loads(model.get_rt_info(SIGNATURE).astype(str))
            if model.has_rt_info(SIGNATURE)
            else {}
        )
        compiled = core.compile_model(model, "CPU", options)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{file.name} cannot be loaded: {reason(error)}", hint="Export the model again."
        ) from error
    return OpenVinoModel(file.name, compiled, known)


class OpenVinoModel:
    """A compiled model and the requests that run it.

    :param known: its inputs and outputs, see :data:`SIGNATURE`; empty: OpenVINO's own.
    """

    platform = "openvino_ir"

    def __init__(
        self, name: str, compiled: CompiledModel, known: Mapping[str, Sequence[int | str]]
    ) -> None:
        self._compiled = compiled
        self._idle: SimpleQueue[InferRequest] = SimpleQueue()
        for _ in range(_PARALLEL):
            self._idle.put(compiled.create_infer_request())
        ports = [*compiled.inputs, *compiled.outputs]
        axes = [*known.items()] or [(_name(port), ()) for port in ports]
        tensors = [_tensor(name, port, *of) for port, of in zip(ports, axes, strict=True)]
        count = len(compiled.inputs)
        self.signature = Signature(tuple(tensors[:count]), tuple(tensors[count:]))
        self._places = {tensor.name: at for at, tensor in enumerate(self.signature.outputs)}

    def call(self) -> Call:
        """A handle with which a run can be ended as long as it has not begun.

        OpenVINO's own ``InferRequest.cancel`` is not used: after it, the next inferences of the
        compiled model may wait for ever (2026.4, with two streams).
        """
        return _Call()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        """The named outputs; see :class:`tracklayer.serving.model.Model`."""
        inputs = [feeds[tensor.name] for tensor in self.signature.inputs]
        request = self._idle.get()
        try:
            if call.terminate:
                raise RequestError(500, "the request was ended before the model ran")
            # Nothing is copied on the way in; on the way out, because the request is used again.
            results = request.infer(inputs, share_inputs=True, share_outputs=True)
            return [results[self._places[name]].copy() for name in outputs]
        except (RuntimeError, ValueError, TypeError) as error:
            raise RequestError(500, f"the model failed on this request: {reason(error)}") from error
        finally:
            self._idle.put(request)


class _Call:
    terminate = False


def _is_ir(file: Path) -> bool:
    with file.open("rb") as stream:
        return bool(_NET.match(stream.read(_HEAD)))


def _name(port: Any) -> str:
    return str(port.get_any_name() if port.get_names() else port.get_node().get_friendly_name())


def _tensor(model: str, port: Any, name: str, axes: Sequence[int | str]) -> Tensor:
    element = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    if element not in _TYPES or shape.rank.is_dynamic:
        raise ModelError(
            f"{model}: {name!r} is a {element} of shape {shape}, which cannot be served",
            hint="Export it as a plain tensor with a known number of axes.",
        )
    dims = tuple(
        dim.get_length() if dim.is_static else str(axes[at] if at < len(axes) else "")
        for at, dim in enumerate(shape)
    )
    return Tensor(name, _TYPES[element], dims)


def reason(error: Exception) -> str:
    """The last sentence of OpenVINO's message, without its source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from ", "Check "))]
    return " ".join((said or lines)[-1:])[:500]
