"""What a network can be turned into. A candidate is one function and one line in the table."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tracklayer.optimize.network import IR, ONNX, is_large, weights
from tracklayer.serving import nvidia
from tracklayer.serving.model import Array

Feeds = Sequence[dict[str, Array]]
Dims = dict[str, list[int | str]]

REGISTERED = "onnx-fp32"
"""The model as it was registered: what every candidate is held against."""


_BATCH = 32
"""Rows for which an engine of TensorRT is made: those of the model server's largest batch."""

_PRODUCTS = ["MatMul", "Gemm", "Conv"]
"""What is quantised of a transformer: between its products lie sums that int8 is too coarse for."""


class NotApplicableError(Exception):
    """A candidate makes no sense for this network; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """One way to serve a network.

    :param build: from an ONNX file, an empty folder, what was put into the network on held-out
        rows, and the axes of its inputs and outputs, to the candidate's files in the folder.
    :param calibrated: whether it changes the numbers, so that it takes held-out data.
    :param needs: what has to be installed, and the extra that has it.
    :param provider: of onnxruntime that it runs on.
    """

    name: str
    build: Callable[[Path, Path, Feeds, Dims], None]
    calibrated: bool = False
    needs: tuple[str, ...] = ()
    provider: str = ""

    def lack(self) -> str:
        """Why it is not available here; empty if it is."""
        if missing := [name for name in self.needs if find_spec(name) is None]:
            return f"{', '.join(missing)} not installed: pip install 'tracklayer[openvino]'"
        if self.provider:
            import onnxruntime

            if self.provider not in onnxruntime.get_available_providers():
                return f"onnxruntime has no {self.provider} here"
        return ""


def _as_it_is(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:  # noqa: ARG001
    for place, file in {ONNX: graph, **weights(graph)}.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, folder / place)


def _optimised(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:  # noqa: ARG001
    """The graph as onnxruntime itself optimises it when it loads one, for this processor."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / ONNX)
    options.log_severity_level = 4
    if is_large(graph):
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, f"{ONNX}.data")
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = [
        Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)
        for file in (graph, folder / ONNX)
    ]
    if kinds[0] == kinds[1]:
        raise NotApplicableError("onnxruntime finds nothing to optimise in the graph")
    for place, file in weights(folder / ONNX).items():
        if not file.exists():  # what it left as it was, it left where it was
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(graph.parent / place, file)


def _int8_dynamic(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:  # noqa: ARG001
    """Weights in int8; activations are quantised as they come, by their least and most."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    attends = _attends(onnx.load(graph, load_external_data=False))
    quantize_dynamic(
        graph,
        folder / ONNX,
        op_types_to_quantize=_PRODUCTS if attends else None,
        per_channel=True,
        reduce_range=not _has_vnni(),
        weight_type=QuantType.QInt8,
        use_external_data_format=is_large(graph),
    )


def _int8_static(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:  # noqa: ARG001
    """Weights and activations in int8; their ranges are those that the held-out rows showed."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    large = is_large(graph)
    prepared = folder / f"prepared-{ONNX}"
    # Shapes are not needed to quantise, and symbolic ones take minutes.
    quant_pre_process(
        graph, prepared, skip_symbolic_shape=True, save_as_external_data=large, skip_onnx_shape=True
    )
    attends = _attends(onnx.load(prepared, load_external_data=False))
    quantize_static(
        prepared,
        folder / ONNX,
        _Reader(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=_PRODUCTS if attends else None,
        per_channel=True,
        reduce_range=not _has_vnni(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=large,
        extra_options={"MatMulConstBOnly": attends},
    )
    for file in folder.glob(f"{prepared.name}*"):
        file.unlink()


class _Reader:
    """The ``CalibrationDataReader`` of onnxruntime."""

    def __init__(self, feeds: Feeds) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        """The next inputs; None at the end."""
        return next(self._left, None)


def _openvino(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:  # noqa: ARG001
    _save(_read(graph, dims), folder, dims)


def _openvino_int8(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:
    """NNCF's post-training quantisation (https://github.com/openvinotoolkit/nncf)."""
    import nncf
    import onnx

    attends = _attends(onnx.load(graph, load_external_data=False))
    quantised = nncf.quantize(
        _read(graph, dims),
        nncf.Dataset(feeds),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(feeds),
        model_type=nncf.ModelType.TRANSFORMER if attends else None,
    )
    _save(quantised, folder, dims)


def _read(graph: Path, dims: Dims) -> Any:
    import openvino

    from tracklayer.serving.openvino import reason

    try:
        model = openvino.Core().read_model(graph)
    except RuntimeError as error:
        raise NotApplicableError(f"OpenVINO does not take the graph: {reason(error)}") from error
    if len(model.inputs) + len(model.outputs) != len(dims):
        raise NotApplicableError("OpenVINO takes an input and an output of the graph for one")
    return model


def _save(model: Any, folder: Path, dims: Dims) -> None:
    import openvino

    from tracklayer.serving.openvino import SIGNATURE

    model.set_rt_info(json.dumps(dims), SIGNATURE)
    openvino.save_model(model, folder / IR, compress_to_fp16=False)


def _cuda(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:
    """The same numbers, on an NVIDIA accelerator."""
    _as_it_is(graph, folder, feeds, dims)
    nvidia.mark(folder / ONNX, nvidia.CUDA)


def _tensorrt(graph: Path, folder: Path, feeds: Feeds, dims: Dims) -> None:
    """NVIDIA's own compiler, in FP16 where it loses nothing that it knows of. The engine that it
    makes is kept beside the graph, so that the server does not make it again."""
    from tracklayer.serving.onnx import load

    _as_it_is(graph, folder, feeds, dims)
    signature = load(folder / ONNX).signature
    shapes = nvidia.spanned(feeds, signature, _BATCH)
    nvidia.mark(folder / ONNX, nvidia.TENSORRT, shapes)
    load(folder / ONNX)


def _attends(model: Any) -> bool:
    """Is it a transformer?"""
    return any(
        node.op_type in ("Attention", "LayerNormalization", "MultiHeadAttention")
        or (node.op_type == "Softmax" and node is not model.graph.node[-1])
        for node in model.graph.node
    )


def _has_vnni() -> bool:
    """Can the processor add up products of int8 without that 16 bits run over?"""
    if os.uname().machine not in ("x86_64", "i686"):
        return True  # Arm's dot products have 32 bits from the start
    return "vnni" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")


CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate(REGISTERED, _as_it_is),
        Candidate("onnx-fp32-optimized", _optimised),
        Candidate("onnx-int8-dynamic", _int8_dynamic, calibrated=True),
        Candidate("onnx-int8-static", _int8_static, calibrated=True),
        Candidate("openvino-fp32", _openvino, needs=("openvino",)),
        Candidate("openvino-int8", _openvino_int8, calibrated=True, needs=("openvino", "nncf")),
        Candidate("cuda-fp32", _cuda, provider=nvidia.CUDA),
        Candidate("tensorrt-fp16", _tensorrt, calibrated=True, provider=nvidia.TENSORRT),
    )
}
"""By name, in the order of the table; the first is the model as it was registered."""
