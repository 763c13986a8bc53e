"""Image classifiers, from their weights to an ONNX graph of standard operators.

The numbers are those of the ``transformers`` library
(https://github.com/huggingface/transformers, ``models/vit``, ``resnet`` and ``convnext``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tracklayer.errors import ModelError
from tracklayer.serving.huggingface_graph import EXPORT, Graph, Weights, integer
from tracklayer.serving.model import Array

PIXELS, LOGITS = "pixel_values", "logits"
"""FP32 ``[batch, channels, height, width]`` in, the scores ``[batch, labels]`` out."""

_BATCH_NORM_EPSILON = 1e-5
_CONVNEXT_EPSILON = 1e-6
"""What PyTorch's batch normalisation and transformers' ConvNeXT have, whatever is configured."""


def build(config: Mapping[str, Any], weights: Weights) -> tuple[bytes, dict[str, Array]]:
    """The graph as a serialised ONNX model, and the weights that it names.

    :raises ModelError: weights are missing, or the model is not one that is served.
    """
    from onnx import TensorProto

    kind = config["model_type"]
    if "auto_map" in config:
        raise ModelError(
            f"this {kind} model comes with code of its own (auto_map in config.json), "
            "which the server does not run",
            hint=EXPORT,
        )
    if kind not in KINDS:
        raise ModelError(
            f"image classifiers of the type {kind!r} are not served from safetensors",
            hint=f"Types served: {', '.join(KINDS)}. {EXPORT}",
        )
    graph = Graph(weights)
    scores = KINDS[kind](graph, config)
    graph.node("Identity", [scores], LOGITS)
    axes = ("batch", integer(config, "num_channels"), "height", "width")
    serialised = graph.serialised(
        {PIXELS: (TensorProto.FLOAT, axes)}, {LOGITS: ["batch", "labels"]}
    )
    return serialised, graph.tensors


def _vit(graph: Graph, config: Mapping[str, Any]) -> str:
    """Source: ``ViTForImageClassification``."""
    prefix = "vit.embeddings."
    patch = _pair(config, "patch_size")
    width = integer(config, "hidden_size")
    heads = integer(config, "num_attention_heads")
    epsilon = float(config.get("layer_norm_eps", 1e-12))
    patches = _convolution(graph, PIXELS, f"{prefix}patch_embeddings.projection", patch)
    shape = graph.integers("patches", 0, width, -1)
    patches = graph.node("Transpose", [graph.node("Reshape", [patches, shape])], perm=[0, 2, 1])
    # The class's token is the same for every image: it goes with its position.
    positions = graph.weights[f"{prefix}position_embeddings"]
    first = graph.tensor("first", graph.weights[f"{prefix}cls_token"] + positions[:, :1])
    others = graph.node("Add", [patches, graph.tensor("positions", positions[:, 1:])])
    one = graph.integers("one", 1)
    count = graph.node("Shape", [PIXELS], start=0, end=1)
    first = graph.node("Expand", [first, graph.node("Concat", [count, one, one], axis=0)])
    hidden = graph.node("Concat", [first, others], axis=1)
    for number in range(integer(config, "num_hidden_layers")):
        layer = f"vit.encoder.layer.{number}."
        normed = graph.norm(hidden, f"{layer}layernorm_before", epsilon)
        names = (f"{layer}attention.attention.{name}" for name in ("query", "key", "value"))
        attended = graph.node(
            "Attention",
            [graph.linear(normed, name) for name in names],
            q_num_heads=heads,
            kv_num_heads=heads,
        )
        attended = graph.linear(attended, f"{layer}attention.output.dense")
        hidden = graph.node("Add", [attended, hidden])
        normed = graph.norm(hidden, f"{layer}layernorm_after", epsilon)
        wide = graph.linear(normed, f"{layer}intermediate.dense")
        wide = graph.activation(wide, config.get("hidden_act", "gelu"))
        hidden = graph.node("Add", [graph.linear(wide, f"{layer}output.dense"), hidden])
    hidden = graph.norm(hidden, "vit.layernorm", epsilon)
    first = graph.node("Gather", [hidden, graph.integers("zero", 0)], axis=1)
    first = graph.node("Squeeze", [first, graph.integers("axis_1", 1)])
    return graph.linear(first, "classifier")


def _resnet(graph: Graph, config: Mapping[str, Any]) -> str:
    """Source: ``ResNetForImageClassification``."""
    activation = config.get("hidden_act", "relu")

    def layer(hidden: str, name: str, stride: int, active: bool = True) -> str:
        """A convolution, normalised, and activated; two operators that onnxruntime makes one."""
        size = graph.weights[f"{name}.convolution.weight"].shape[-1]
        hidden = _convolution(graph, hidden, f"{name}.convolution", (stride, stride), size // 2)
        norm = (f"{name}.normalization.{part}" for part in _BATCH_NORM)
        inputs = [hidden, *map(graph.weight, norm)]
        hidden = graph.node("BatchNormalization", inputs, epsilon=_BATCH_NORM_EPSILON)
        return graph.activation(hidden, activation) if active else hidden

    hidden = layer(PIXELS, "resnet.embedder.embedder", 2)
    hidden = graph.node("MaxPool", [hidden], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    # Which of a layer's convolutions makes the image smaller.
    shrinking = 1 if bottleneck and not config.get("downsample_in_bottleneck") else 0
    for stage, depth in enumerate(_integers(config, "depths")):
        for number in range(depth):
            name = f"resnet.encoder.stages.{stage}.layers.{number}"
            smaller = not number and (stage or config.get("downsample_in_first_stage"))
            stride = 2 if smaller else 1
            residual = hidden
            if f"{name}.shortcut.convolution.weight" in graph.weights:
                residual = layer(hidden, f"{name}.shortcut", stride, active=False)
            last = 2 if bottleneck else 1
            for index in range(last + 1):
                step = stride if index == shrinking else 1
                hidden = layer(hidden, f"{name}.layer.{index}", step, active=index < last)
            hidden = graph.activation(graph.node("Add", [hidden, residual]), activation)
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [hidden])])
    return graph.linear(pooled, "classifier.1")


_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def _convnext(graph: Graph, config: Mapping[str, Any]) -> str:
    """Source: ``ConvNextForImageClassification``."""
    first, last = [0, 2, 3, 1], [0, 3, 1, 2]  # where the channels are, of four axes

    def norm(hidden: str, name: str) -> str:
        """Layer normalisation over the channels, which come first."""
        moved = graph.node("Transpose", [hidden], perm=first)
        return graph.node("Transpose", [graph.norm(moved, name, _CONVNEXT_EPSILON)], perm=last)

    prefix = "convnext.embeddings."
    hidden = _convolution(
        graph, PIXELS, f"{prefix}patch_embeddings", _pair(config, "patch_size", 4)
    )
    hidden = norm(hidden, f"{prefix}layernorm")
    for stage, depth in enumerate(_integers(config, "depths")):
        prefix = f"convnext.encoder.stages.{stage}."
        if stage:
            hidden = norm(hidden, f"{prefix}downsampling_layer.0")
            hidden = _convolution(graph, hidden, f"{prefix}downsampling_layer.1", (2, 2))
        for number in range(depth):
            layer = f"{prefix}layers.{number}."
            inner = _convolution(graph, hidden, f"{layer}dwconv", (1, 1), 3)
            inner = graph.node("Transpose", [inner], perm=first)
            inner = graph.norm(inner, f"{layer}layernorm", _CONVNEXT_EPSILON)
            inner = graph.linear(inner, f"{layer}pwconv1")
            inner = graph.activation(inner, config.get("hidden_act", "gelu"))
            inner = graph.linear(inner, f"{layer}pwconv2")
            if (scale := f"{layer}layer_scale_parameter") in graph.weights:
                inner = graph.node("Mul", [inner, graph.weight(scale)])
            inner = graph.node("Transpose", [inner], perm=last)
            hidden = graph.node("Add", [inner, hidden])
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [hidden])])
    epsilon = float(config.get("layer_norm_eps", 1e-12))
    return graph.linear(graph.norm(pooled, "convnext.layernorm", epsilon), "classifier")


KINDS: dict[str, Callable[[Graph, Mapping[str, Any]], str]] = {
    "convnext": _convnext,
    "resnet": _resnet,
    "vit": _vit,
}
"""``model_type`` of a config.json -> what adds its nodes and gives its scores."""


def _convolution(
    graph: Graph, hidden: str, name: str, strides: tuple[int, int], padding: int = 0
) -> str:
    """A convolution as its weights have it; one group a channel where each filter sees one."""
    weight = graph.weights[f"{name}.weight"]
    inputs = [hidden, graph.tensor(f"{name}.weight", weight)]
    if f"{name}.bias" in graph.weights:
        inputs.append(graph.weight(f"{name}.bias"))
    return graph.node(
        "Conv",
        inputs,
        strides=list(strides),
        pads=[padding] * 4,
        group=len(weight) if weight.shape[1] == 1 else 1,
    )


def _pair(config: Mapping[str, Any], key: str, default: int | None = None) -> tuple[int, int]:
    value = config.get(key, default)
    if isinstance(value, list) and len(value) == 2:
        height, width = value
        sizes = {"height": height, "width": width}
        return integer(sizes, "height"), integer(sizes, "width")
    size = integer({key: value}, key)
    return size, size


def _integers(config: Mapping[str, Any], key: str) -> list[int]:
    values = config.get(key)
    if not isinstance(values, list) or not values:
        raise ModelError(f"config.json: {key} must be an array of numbers, not {values!r}")
    return [integer({key: value}, key) for value in values]
