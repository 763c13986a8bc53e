"""ONNX models on NVIDIA accelerators, by onnxruntime's CUDA and TensorRT providers.

An ONNX file that was made for one of them says so in its own metadata, and is served by it or not
at all: onnxruntime alone would fall back to the processor without a word.

Source of the options: "CUDA Execution Provider" and "TensorRT Execution Provider" in onnxruntime's
documentation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.model import DATATYPES, Array, Signature

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"

PROVIDER, SHAPES = "tracklayer.provider", "tracklayer.shapes"
"""Keys of the metadata: the provider; and, as JSON, input name -> its least and its largest shape,
for which TensorRT's engine is made."""

_CPU = "CPUExecutionProvider"
_CUDA_OPTIONS = {
    "use_tf32": "0",  # FP32 is FP32
    # The default tries all algorithms anew for each size of a batch.
    "cudnn_conv_algo_search": "HEURISTIC",
}


def mark(file: Path, provider: str, shapes: Mapping[str, Sequence[Sequence[int]]] = {}) -> None:
    """Have an ONNX file served by a provider; its external data stays as it is.

    :param shapes: see :data:`SHAPES`.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    known = {entry.key: entry.value for entry in model.metadata_props}
    known |= {PROVIDER: provider} | ({SHAPES: json.dumps(shapes)} if shapes else {})
    onnx.helper.set_model_props(model, known)
    file.write_bytes(model.SerializeToString())


def provider_of(session: InferenceSession) -> str:
    """The provider that a model was made for; empty: none in particular."""
    found: str = session.get_modelmeta().custom_metadata_map.get(PROVIDER, "")
    return found


def opened(
    file: Path, provider: str, options: SessionOptions, signature: Signature
) -> InferenceSession:
    """The session of an ONNX file on the provider that it was made for.

    TensorRT makes its engine when it is first asked, in minutes, and keeps it beside the file, by
    the kind of accelerator: where it lies there, it is read in a moment. It is asked here, because
    the file may be gone later.

    :raises ModelError: the provider is not here, does not start, or fails on the model.
    """
    import onnxruntime as ort

    if provider not in (CUDA, TENSORRT):
        raise ModelError(f"{file.name} was made for {provider!r}, which is not served")
    if provider not in ort.get_available_providers():
        raise ModelError(
            f"{file.name} was made for an NVIDIA accelerator, and onnxruntime has no {provider}",
            hint="Install onnxruntime-gpu in place of onnxruntime, or deploy with `optimize` anew.",
        )
    with redirect_stdout(sys.stderr):  # it tells there what it does not find
        ort.preload_dlls()
        if provider == TENSORRT and find_spec("tensorrt"):
            import_module("tensorrt")  # onnxruntime finds its libraries only where they are loaded
    providers: list[Any] = [(CUDA, _CUDA_OPTIONS), _CPU]
    if provider == TENSORRT:
        providers.insert(0, (TENSORRT, _tensorrt_options(file.parent)))
    # Its errors are of many classes; whichever it is, nothing is answered by the processor instead.
    try:
        found = ort.InferenceSession(file, options, providers=providers, enable_fallback=0)
        if found.get_providers()[0] == provider:
            _ask(found, signature)
            return found
        reason = "no accelerator, or a library of NVIDIA's is missing"
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:300]
    raise ModelError(
        f"{file.name}: onnxruntime's {provider} does not start here: {reason}",
        hint="`nvidia-smi` shows the accelerator; CUDA, cuDNN and TensorRT must suit onnxruntime.",
    )


def spanned(
    feeds: Sequence[Mapping[str, Array]], signature: Signature, most: int
) -> dict[str, list[list[int]]]:
    """The least and the largest shape of each input among some feeds, see :data:`SHAPES`.

    :param most: rows of a batch, where the first axis is free.
    """
    spans = {}
    for tensor in signature.inputs:
        sizes = np.array([feed[tensor.name].shape for feed in feeds], dtype=int)
        if not tensor.dims:
            continue
        least, largest = sizes.min(axis=0), sizes.max(axis=0)
        if isinstance(tensor.dims[0], str):
            least[0], largest[0] = 1, max(most, largest[0])
        spans[tensor.name] = [least.tolist(), largest.tolist()]
    return spans


def _tensorrt_options(folder: Path) -> dict[str, str]:
    return {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def _ask(session: InferenceSession, signature: Signature) -> None:
    """Ask for the least and the largest of the shapes in the metadata, if there are any: TensorRT's
    engine then suits all between them. Others are answered too, after it was made anew."""
    shapes = json.loads(session.get_modelmeta().custom_metadata_map.get(SHAPES, "null"))
    for end in range(2) if shapes else ():
        feeds = {}
        for tensor in signature.inputs:
            shape = shapes[tensor.name][end] if tensor.dims else []
            fill = "" if tensor.datatype == "BYTES" else 0
            feeds[tensor.name] = np.full(shape, fill, DATATYPES[tensor.datatype])
        session.run(None, feeds)
