"""A text encoder of the BERT family, from its weights to an ONNX graph of standard operators.

onnxruntime runs the graph, so that the server needs no PyTorch. The numbers are those of the
``transformers`` library (https://github.com/huggingface/transformers, ``models/bert`` and others).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.model import Array

IDS, MASK = "input_ids", "attention_mask"
"""Inputs of the graph, both INT64 ``[batch, tokens]``; the mask is 1 for a token, 0 for padding."""

_WORDS = "embeddings.word_embeddings.weight"

_OPSET, _IR_VERSION = 23, 11
"""The first operator set with attention, and the file format that belongs to it."""

_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}

_EXPORT = "Export the model to ONNX, as onnx/model.onnx in the same folder."


@dataclass(frozen=True)
class Family:
    """What a model type calls its settings and weights.

    ``head`` is the way from the first token to the scores: layer and activation. ``padded``: the
    positions are counted from the number of the padding token on.
    """

    prefix: str
    layer: str
    attention: tuple[str, ...]
    attention_norm: str
    feed_forward: tuple[str, ...]
    norm: str
    head: tuple[tuple[str, str], ...]
    padded: bool = False
    relative: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


_BERT = Family(
    prefix="bert.",
    layer="encoder.layer.{}.",
    attention=(
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        "attention.output.dense",
    ),
    attention_norm="attention.output.LayerNorm",
    feed_forward=("intermediate.dense", "output.dense"),
    norm="output.LayerNorm",
    head=(("pooler.dense", "Tanh"), ("classifier", "")),
)
_ROBERTA = replace(
    _BERT,
    prefix="roberta.",
    head=(("classifier.dense", "Tanh"), ("classifier.out_proj", "")),
    padded=True,
)
FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": Family(
        prefix="distilbert.",
        layer="transformer.layer.{}.",
        attention=tuple(f"attention.{name}_lin" for name in ("q", "k", "v", "out")),
        attention_norm="sa_layer_norm",
        feed_forward=("ffn.lin1", "ffn.lin2"),
        norm="output_layer_norm",
        head=(("pre_classifier", "Relu"), ("classifier", "")),
        settings={
            "hidden_size": "dim",
            "num_attention_heads": "n_heads",
            "num_hidden_layers": "n_layers",
            "hidden_act": "activation",
        },
    ),
    "mpnet": replace(
        _ROBERTA,
        prefix="mpnet.",
        attention=tuple(f"attention.attn.{name}" for name in "qkvo"),
        attention_norm="attention.LayerNorm",
        relative="encoder.relative_attention_bias.weight",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""``model_type`` of a config.json -> its family."""


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


def build(
    config: Mapping[str, Any], weights: Weights, output: str
) -> tuple[bytes, dict[str, Array]]:
    """The graph as a serialised ONNX model, and the weights that it names.

    :param output: ``last_hidden_state`` (FP32 ``[batch, tokens, width]``), or ``logits``, the
        scores of a classifier (FP32 ``[batch, labels]``).
    :raises ModelError: weights are missing, or the model is not one that is served.
    """
    from onnx import TensorProto, helper

    _check(config)
    graph = _Encoder(config, weights)
    hidden = graph.encode()
    if output == "logits":
        hidden = graph.classify(hidden)
    graph.node("Identity", [hidden], output)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in (IDS, MASK)
    ]
    axes = ["batch", "labels"] if output == "logits" else ["batch", "tokens", "width"]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, axes)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.initialisers),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    return model.SerializeToString(), graph.tensors


def position_rows(config: Mapping[str, Any]) -> int | None:
    """Tokens that a text may have at most, for want of positions; None: no such bound is known.

    :raises ModelError: a model of these families does not say how many.
    """
    if config["model_type"] not in FAMILIES and "max_position_embeddings" not in config:
        return None
    return _integer(config, "max_position_embeddings") - _first_position(config)


def _check(config: Mapping[str, Any]) -> None:
    kind = config["model_type"]
    if "auto_map" in config:
        raise ModelError(
            f"this {kind} model comes with code of its own (auto_map in config.json), "
            "which the server does not run",
            hint=_EXPORT,
        )
    if kind not in FAMILIES:
        raise ModelError(
            f"models of the type {kind!r} are not served from safetensors",
            hint=f"Types served: {', '.join(FAMILIES)}. {_EXPORT}",
        )
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise ModelError(
            "config.json: relative positions and decoders are not served from safetensors",
            hint=_EXPORT,
        )


class _Encoder:
    """The nodes of one encoder; their weights stay outside of the graph, which may not take 2 GiB.

    Padding and token types need no node: types are 0, and row 0 of their table is in the positions.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self.tensors: dict[str, Array] = {}
        self._family = family = FAMILIES[config["model_type"]]
        self._config: dict[str, Any] = {
            **config,
            **{name: config.get(key) for name, key in family.settings.items()},
        }
        self._weights = weights
        self._prefix = family.prefix if family.prefix + _WORDS in weights else ""
        self._heads = _integer(self._config, "num_attention_heads")
        self._epsilon = float(self._config.get("layer_norm_eps", 1e-12))
        if self._config.get("hidden_act", "gelu") not in _ACTIVATIONS:
            raise ModelError(
                f"config.json: the activation {self._config['hidden_act']!r} is not served",
                hint=f"Served: {', '.join(_ACTIVATIONS)}.",
            )

    def encode(self) -> str:
        family = self._family
        sizes = self.node("Shape", [IDS], start=1, end=2)
        hidden = self._embeddings(sizes)
        mask = self._attention_mask(sizes)
        kind, options = _ACTIVATIONS[self._config.get("hidden_act", "gelu")]
        for number in range(_integer(self._config, "num_hidden_layers")):
            layer = self._prefix + family.layer.format(number)
            *projections, output = (layer + name for name in family.attention)
            attended = self.node(
                "Attention",
                [*(self.linear(hidden, name) for name in projections), mask],
                q_num_heads=self._heads,
                kv_num_heads=self._heads,
            )
            added = self.node("Add", [self.linear(attended, output), hidden])
            hidden = self._norm(added, layer + family.attention_norm)
            widen, narrow = (layer + name for name in family.feed_forward)
            wide = self.node(kind, [self.linear(hidden, widen)], **options)
            added = self.node("Add", [self.linear(wide, narrow), hidden])
            hidden = self._norm(added, layer + family.norm)
        return hidden

    def classify(self, hidden: str) -> str:
        """The scores of a text, from its first token."""
        first = self.node("Gather", [hidden, self._integers("first", 0)], axis=1)
        scores = self.node("Squeeze", [first, self._integers("axis_1", 1)])
        for name, activation in self._family.head:
            inside = self._prefix + name
            scores = self.linear(scores, inside if f"{inside}.weight" in self._weights else name)
            scores = self.node(activation, [scores]) if activation else scores
        return scores

    def linear(self, hidden: str, name: str) -> str:
        weight = self._tensor(f"{name}.weight", self._weights[f"{name}.weight"].T)
        product = self.node("MatMul", [hidden, weight])
        if f"{name}.bias" not in self._weights:
            return product
        bias = self._tensor(f"{name}.bias", self._weights[f"{name}.bias"])
        return self.node("Add", [product, bias])

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _embeddings(self, sizes: str) -> str:
        prefix = f"{self._prefix}embeddings."
        words = self._weights[self._prefix + _WORDS]
        width = _integer(self._config, "hidden_size")
        if width != words.shape[1] or width % self._heads:
            raise ModelError(
                f"config.json: hidden_size is {width} and num_attention_heads {self._heads}, "
                f"but the embeddings have a width of {words.shape[1]}"
            )
        positions = self._weights[f"{prefix}position_embeddings.weight"]
        positions = positions[_first_position(self._config) :]
        if (types := f"{prefix}token_type_embeddings.weight") in self._weights:
            positions = positions + self._weights[types][0]
        start, axis = self._integers("start", 0), self._integers("axis_0", 0)
        found = self.node("Slice", [self._tensor("positions", positions), start, sizes, axis])
        embedded = self.node("Gather", [self._tensor("words", words), IDS])
        added = self.node("Add", [embedded, found])
        return self._norm(added, f"{prefix}LayerNorm")

    def _attention_mask(self, sizes: str) -> str:
        from onnx import TensorProto

        axes = self._integers("axes_1_2", 1, 2)
        one = self._integers("one", 1)
        keys = self.node("Cast", [MASK], to=TensorProto.BOOL)
        keys = self.node("Unsqueeze", [keys, axes])
        if not self._family.relative:
            shape = self.node("Concat", [one, one, sizes, one], axis=0)
            return self.node("Expand", [keys, shape])
        table = self._weights[self._prefix + self._family.relative]
        rows = len(self.tensors["positions"])
        bias = self._tensor("relative", _relative_bias(table, rows))
        both = self.node("Concat", [sizes, sizes], axis=0)
        start, axes = self._integers("starts", 0, 0), self._integers("axes_2_3", 2, 3)
        bias = self.node("Slice", [bias, start, both, axes])
        nothing = self._tensor("nothing", np.array([np.finfo(np.float32).min]))
        return self.node("Where", [keys, bias, nothing])

    def _norm(self, hidden: str, name: str) -> str:
        # Checkpoints that were converted from TensorFlow have the old names.
        old = f"{name}.gamma" in self._weights
        names = [f"{name}.{part}" for part in (("gamma", "beta") if old else ("weight", "bias"))]
        inputs = [self._tensor(part, self._weights[part]) for part in names]
        return self.node("LayerNormalization", [hidden, *inputs], epsilon=self._epsilon)

    def _integers(self, name: str, *values: int) -> str:
        from onnx import numpy_helper

        if name not in {known.name for known in self.initialisers}:
            self.initialisers.append(numpy_helper.from_array(np.array(values), name))
        return name

    def _tensor(self, name: str, array: Array) -> str:
        from onnx import TensorProto

        self.tensors[name] = np.ascontiguousarray(array, dtype=np.float32)
        outside = TensorProto(
            name=name,
            dims=array.shape,
            data_type=TensorProto.FLOAT,
            data_location=TensorProto.EXTERNAL,
        )
        outside.external_data.add(key="location", value="memory")
        self.initialisers.append(outside)
        return name


def _relative_bias(table: Array, rows: int) -> Array:
    """MPNet's attention bias ``[1, heads, rows, rows]`` from that of each bucket of distances."""
    buckets = len(table) // 2
    exact = buckets // 2
    steps = np.arange(rows)
    distance = steps[:, None] - steps[None, :]
    far = np.maximum(np.abs(distance), exact).astype(np.float32) / exact
    scaled = np.log(far) / np.float32(math.log(128 / exact)) * (buckets - exact)
    bucket = np.where(
        np.abs(distance) < exact,
        np.abs(distance),
        np.minimum(exact + scaled.astype(np.int64), buckets - 1),
    )
    bias: Array = table[bucket + (distance < 0) * buckets].transpose(2, 0, 1)[None]
    return bias


def _first_position(config: Mapping[str, Any]) -> int:
    family = FAMILIES.get(config["model_type"])
    return _integer(config, "pad_token_id", 0) + 1 if family and family.padded else 0


def _integer(config: Mapping[str, Any], key: str, least: int = 1) -> int:
    """
    :raises ModelError: it is missing, no whole number, or too small.
    """
    value = config.get(key)
    if type(value) is not int or value < least:
        raise ModelError(f"config.json: {key} must be a number from {least} on, not {value!r}")
    return value
