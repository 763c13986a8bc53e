"""What the graphs of Hugging Face models are made of: weights of safetensors, ONNX operators.

onnxruntime runs the graphs, so that the server needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.model import Array

_OPSET, _IR_VERSION = 23, 11
"""The first operator set with attention, and the file format that belongs to it."""

_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}

EXPORT = "Export the model to ONNX, as onnx/model.onnx in the same folder."
"""What to do with a model that is not served from its weights."""


class Weights:
    """The tensors of safetensors files, as FP32."""

    def __init__(self, files: Sequence[Path]) -> None:
        """
        :raises ModelError: a file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        self._files: dict[str, Any] = {}
        for file in files:
            try:
                opened: Any = safe_open(file, "np")
            except SafetensorError as error:
                raise ModelError(f"{file.name} is damaged: {error}") from error
            self._files |= dict.fromkeys(opened.keys(), opened)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Array:
        """
        :raises ModelError: there is no such tensor.
        """
        if name not in self._files:
            raise ModelError(
                f"the weights have no tensor {name!r}, which config.json promises",
                hint="Save model and configuration together, with save_pretrained.",
            )
        tensor: Array = self._files[name].get_tensor(name)
        return tensor.astype(np.float32)


class Graph:
    """Nodes that are added one behind the other; an output is called by its name.

    The weights stay outside of the graph, which may not take 2 GiB.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.tensors: dict[str, Array] = {}
        self._nodes: list[Any] = []
        self._initialisers: dict[str, Any] = {}

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        """The output of a standard operator."""
        from onnx import helper

        name = name or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def linear(self, hidden: str, name: str) -> str:
        """A layer ``name.weight`` ``[out, in]``, with ``name.bias`` if there is one."""
        weight = self.tensor(f"{name}.weight", self.weights[f"{name}.weight"].T)
        product = self.node("MatMul", [hidden, weight])
        if f"{name}.bias" not in self.weights:
            return product
        return self.node("Add", [product, self.weight(f"{name}.bias")])

    def norm(self, hidden: str, name: str, epsilon: float) -> str:
        """Layer normalisation over the last axis."""
        # Checkpoints that were converted from TensorFlow have the old names.
        old = f"{name}.gamma" in self.weights
        names = [f"{name}.{part}" for part in (("gamma", "beta") if old else ("weight", "bias"))]
        inputs = [self.weight(part) for part in names]
        return self.node("LayerNormalization", [hidden, *inputs], epsilon=epsilon)

    def activation(self, hidden: str, kind: str) -> str:
        """An activation by its name in a ``config.json``.

        :raises ModelError: it is none of those that are served.
        """
        if kind not in _ACTIVATIONS:
            raise ModelError(
                f"config.json: the activation {kind!r} is not served",
                hint=f"Served: {', '.join(_ACTIVATIONS)}.",
            )
        operator, options = _ACTIVATIONS[kind]
        return self.node(operator, [hidden], **options)

    def integers(self, name: str, *values: int) -> str:
        """A constant INT64 vector."""
        from onnx import numpy_helper

        self._initialisers[name] = numpy_helper.from_array(np.array(values, dtype=np.int64), name)
        return name

    def weight(self, name: str) -> str:
        """One of the weights, as it is."""
        return self.tensor(name, self.weights[name])

    def tensor(self, name: str, array: Array) -> str:
        """An FP32 tensor."""
        from onnx import TensorProto

        self.tensors[name] = np.ascontiguousarray(array, dtype=np.float32)
        outside = TensorProto(
            name=name,
            dims=array.shape,
            data_type=TensorProto.FLOAT,
            data_location=TensorProto.EXTERNAL,
        )
        outside.external_data.add(key="location", value="memory")
        self._initialisers[name] = outside
        return name

    def serialised(
        self,
        inputs: Mapping[str, tuple[int, Sequence[str | int]]],
        outputs: Mapping[str, Sequence[str | int]],
    ) -> bytes:
        """The ONNX model.

        :param inputs: name -> element type of ONNX, and axes.
        :param outputs: name -> axes; FP32.
        """
        from onnx import TensorProto, helper

        takes = [
            helper.make_tensor_value_info(name, element, axes)
            for name, (element, axes) in inputs.items()
        ]
        gives = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
            for name, axes in outputs.items()
        ]
        graph = helper.make_graph(
            self._nodes, "network", takes, gives, list(self._initialisers.values())
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        serialised: bytes = model.SerializeToString()
        return serialised


def integer(config: Mapping[str, Any], key: str, least: int = 1) -> int:
    """A whole number of a ``config.json``.

    :raises ModelError: it is missing, no whole number, or too small.
    """
    value = config.get(key)
    if type(value) is not int or value < least:
        raise ModelError(f"config.json: {key} must be a number from {least} on, not {value!r}")
    return value
