"""A text encoder of the BERT family, from its weights to an ONNX graph of standard operators.

The numbers are those of the ``transformers`` library
(https://github.com/huggingface/transformers, ``models/bert`` and others).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.huggingface_graph import EXPORT, Graph, Weights, integer
from tracklayer.serving.model import Array

Task = Literal["encode", "classify", "classify tokens"]
"""What is wanted of an encoder: its output, the scores of a text, or those of each token."""

IDS, MASK = "input_ids", "attention_mask"
"""Inputs of the graph, both INT64 ``[batch, tokens]``; the mask is 1 for a token, 0 for padding."""

_WORDS = "embeddings.word_embeddings.weight"


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


def build(
    config: Mapping[str, Any], weights: Weights, task: Task = "encode"
) -> tuple[bytes, dict[str, Array]]:
    """The graph as a serialised ONNX model, and the weights that it names.

    Its output, FP32, is ``last_hidden_state`` ``[batch, tokens, width]``, or ``logits``: ``[batch,
    labels]`` for a text, ``[batch, tokens, labels]`` for its tokens.

    :raises ModelError: weights are missing, or the model is not one that is served.
    """
    from onnx import TensorProto

    _check(config)
    graph = _Encoder(config, weights)
    hidden = graph.encode()
    output, axes = "last_hidden_state", ["batch", "tokens", "width"]
    if task == "classify":
        hidden, output, axes = graph.classify(hidden), "logits", ["batch", "labels"]
    elif task == "classify tokens":
        hidden, output = graph.linear(hidden, "classifier"), "logits"
    graph.node("Identity", [hidden], output)
    inputs = dict.fromkeys((IDS, MASK), (TensorProto.INT64, ("batch", "tokens")))
    return graph.serialised(inputs, {output: axes}), graph.tensors


def position_rows(config: Mapping[str, Any]) -> int | None:
    """Tokens that a text may have at most, for want of positions; None: no such bound is known.

    :raises ModelError: a model of these families does not say how many.
    """
    if config["model_type"] not in FAMILIES and "max_position_embeddings" not in config:
        return None
    return integer(config, "max_position_embeddings") - _first_position(config)


def _check(config: Mapping[str, Any]) -> None:
    kind = config["model_type"]
    if "auto_map" in config:
        raise ModelError(
            f"this {kind} model comes with code of its own (auto_map in config.json), "
            "which the server does not run",
            hint=EXPORT,
        )
    if kind not in FAMILIES:
        raise ModelError(
            f"models of the type {kind!r} are not served from safetensors",
            hint=f"Types served: {', '.join(FAMILIES)}. {EXPORT}",
        )
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise ModelError(
            "config.json: relative positions and decoders are not served from safetensors",
            hint=EXPORT,
        )


class _Encoder(Graph):
    """The nodes of one encoder.

    Padding and token types need no node: types are 0, and row 0 of their table is in the positions.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        super().__init__(weights)
        self._family = family = FAMILIES[config["model_type"]]
        self._config: dict[str, Any] = {
            **config,
            **{name: config.get(key) for name, key in family.settings.items()},
        }
        self._prefix = family.prefix if family.prefix + _WORDS in weights else ""
        self._heads = integer(self._config, "num_attention_heads")
        self._epsilon = float(self._config.get("layer_norm_eps", 1e-12))

    def encode(self) -> str:
        family = self._family
        sizes = self.node("Shape", [IDS], start=1, end=2)
        hidden = self._embeddings(sizes)
        mask = self._attention_mask(sizes)
        activation = self._config.get("hidden_act", "gelu")
        for number in range(integer(self._config, "num_hidden_layers")):
            layer = self._prefix + family.layer.format(number)
            *projections, output = (layer + name for name in family.attention)
            attended = self.node(
                "Attention",
                [*(self.linear(hidden, name) for name in projections), mask],
                q_num_heads=self._heads,
                kv_num_heads=self._heads,
            )
            added = self.node("Add", [self.linear(attended, output), hidden])
            hidden = self.norm(added, layer + family.attention_norm, self._epsilon)
            widen, narrow = (layer + name for name in family.feed_forward)
            wide = self.activation(self.linear(hidden, widen), activation)
            added = self.node("Add", [self.linear(wide, narrow), hidden])
            hidden = self.norm(added, layer + family.norm, self._epsilon)
        return hidden

    def classify(self, hidden: str) -> str:
        """The scores of a text, from its first token."""
        first = self.node("Gather", [hidden, self.integers("first", 0)], axis=1)
        scores = self.node("Squeeze", [first, self.integers("axis_1", 1)])
        for name, activation in self._family.head:
            inside = self._prefix + name
            scores = self.linear(scores, inside if f"{inside}.weight" in self.weights else name)
            scores = self.node(activation, [scores]) if activation else scores
        return scores

    def _embeddings(self, sizes: str) -> str:
        prefix = f"{self._prefix}embeddings."
        words = self.weights[self._prefix + _WORDS]
        width = integer(self._config, "hidden_size")
        if width != words.shape[1] or width % self._heads:
            raise ModelError(
                f"config.json: hidden_size is {width} and num_attention_heads {self._heads}, "
                f"but the embeddings have a width of {words.shape[1]}"
            )
        positions = self.weights[f"{prefix}position_embeddings.weight"]
        positions = positions[_first_position(self._config) :]
        if (types := f"{prefix}token_type_embeddings.weight") in self.weights:
            positions = positions + self.weights[types][0]
        start, axis = self.integers("start", 0), self.integers("axis_0", 0)
        found = self.node("Slice", [self.tensor("positions", positions), start, sizes, axis])
        embedded = self.node("Gather", [self.tensor("words", words), IDS])
        added = self.node("Add", [embedded, found])
        return self.norm(added, f"{prefix}LayerNorm", self._epsilon)

    def _attention_mask(self, sizes: str) -> str:
        from onnx import TensorProto

        axes = self.integers("axes_1_2", 1, 2)
        one = self.integers("one", 1)
        keys = self.node("Cast", [MASK], to=TensorProto.BOOL)
        keys = self.node("Unsqueeze", [keys, axes])
        if not self._family.relative:
            shape = self.node("Concat", [one, one, sizes, one], axis=0)
            return self.node("Expand", [keys, shape])
        table = self.weights[self._prefix + self._family.relative]
        rows = len(self.tensors["positions"])
        bias = self.tensor("relative", _relative_bias(table, rows))
        both = self.node("Concat", [sizes, sizes], axis=0)
        start, axes = self.integers("starts", 0, 0), self.integers("axes_2_3", 2, 3)
        bias = self.node("Slice", [bias, start, both, axes])
        nothing = self.tensor("nothing", np.array([np.finfo(np.float32).min]))
        return self.node("Where", [keys, bias, nothing])


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
    return integer(config, "pad_token_id", 0) + 1 if family and family.padded else 0
