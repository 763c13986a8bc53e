"""DistilBERT (Sanh et al. 2019) with random weights, as exporters write it to ONNX.

6 layers, 768 wide, 12 heads, 3072 in between, 30,522 words; the mean over the tokens at the end,
as sentence encoders have it. Attention is written out, in operators of ONNX's version 17: every
runtime reads that, and finds in it what it fuses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from bench.endpoints import Array
from bench.networks import TOKENS

_HEADS = 12
_LEAST = float(np.finfo(np.float32).min)


class _Graph:
    """Nodes that are added one behind the other; an output is called by its name."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self._tensors: dict[str, Array] = {}

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        name = name or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def tensor(self, value: Any, kind: Any = np.float32) -> str:
        name = f"constant_{len(self._tensors)}"
        self._tensors[name] = np.array(value, kind)
        return name

    def weight(self, name: str, *, turned: bool = False) -> str:
        array = self._weights[name]
        self._tensors[name] = np.ascontiguousarray(array.T if turned else array)
        return name

    def linear(self, x: str, name: str) -> str:
        product = self.node("MatMul", [x, self.weight(f"{name}.weight", turned=True)])
        return self.node("Add", [self.weight(f"{name}.bias"), product])

    def norm(self, x: str, name: str) -> str:
        parts = [self.weight(f"{name}.{part}") for part in ("weight", "bias")]
        return self.node("LayerNormalization", [x, *parts], axis=-1, epsilon=1e-12)

    def gelu(self, x: str) -> str:
        scaled = self.node("Erf", [self.node("Div", [x, self.tensor(2**0.5)])])
        doubled = self.node("Mul", [x, self.node("Add", [scaled, self.tensor(1)])])
        return self.node("Mul", [doubled, self.tensor(0.5)])

    def embeddings(self) -> str:
        words = self.weight("embeddings.word_embeddings.weight")
        places = self.weight("embeddings.position_embeddings.weight")
        ends = [
            self.tensor([0], np.int64),
            self.node("Shape", ["input_ids"], start=1, end=2),
            self.tensor([0], np.int64),
        ]
        there = self.node("Slice", [places, *ends])
        added = self.node("Add", [self.node("Gather", [words, "input_ids"]), there])
        return self.norm(added, "embeddings.LayerNorm")

    def hidden_places(self, mask: str) -> str:
        """The least number where there is no token, 0 where there is one; over heads and rows."""
        wide = self.node("Unsqueeze", [mask, self.tensor([1, 2], np.int64)])
        absent = self.node("Sub", [self.tensor(1), wide])
        return self.node("Mul", [absent, self.tensor(_LEAST)])

    def layer(self, x: str, number: int, mask: str) -> str:
        width = len(self._weights["embeddings.LayerNorm.weight"])
        name = f"transformer.layer.{number}."
        split = self.tensor([0, 0, _HEADS, width // _HEADS], np.int64)
        query, key, value = (
            self.node(
                "Transpose",
                [self.node("Reshape", [self.linear(x, f"{name}attention.{part}_lin"), split])],
                perm=perm,
            )
            for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
        )
        scale = self.tensor((width // _HEADS) ** 0.5)
        scores = self.node("Div", [self.node("MatMul", [query, key]), scale])
        shares = self.node("Softmax", [self.node("Add", [scores, mask])], axis=-1)
        seen = self.node("Transpose", [self.node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        joined = self.node("Reshape", [seen, self.tensor([0, 0, width], np.int64)])
        added = self.node("Add", [self.linear(joined, f"{name}attention.out_lin"), x])
        x = self.norm(added, f"{name}sa_layer_norm")
        inner = self.gelu(self.linear(x, f"{name}ffn.lin1"))
        added = self.node("Add", [self.linear(inner, f"{name}ffn.lin2"), x])
        return self.norm(added, f"{name}output_layer_norm")

    def mean(self, x: str, mask: str) -> str:
        wide = self.node("Unsqueeze", [mask, self.tensor([2], np.int64)])
        axis = self.tensor([1], np.int64)
        total = self.node("ReduceSum", [self.node("Mul", [x, wide]), axis], keepdims=0)
        count = self.node("ReduceSum", [wide, axis], keepdims=0)
        return self.node("Div", [total, self.node("Max", [count, self.tensor(1e-9)])], "embedding")

    def model(self) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        inputs = [
            value(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        width = len(self._weights["embeddings.LayerNorm.weight"])
        tensors = [numpy_helper.from_array(array, name) for name, array in self._tensors.items()]
        graph = helper.make_graph(
            self._nodes,
            "network",
            inputs,
            [value("embedding", TensorProto.FLOAT, ["batch", width])],
            tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def export(encoder: Path, folder: Path) -> dict[str, Array]:
    """Write ``model.onnx`` and held-out rows, of the encoder in a folder of :mod:`bench.networks`.

    :param folder: is made.
    :returns: one request, of 128 tokens.
    """
    weights = load_file(encoder / "model.safetensors")
    graph = _Graph(weights)
    mask = graph.node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    hidden, x = graph.hidden_places(mask), graph.embeddings()
    for number in range(json.loads((encoder / "config.json").read_text())["n_layers"]):
        x = graph.layer(x, number, hidden)
    graph.mean(x, mask)
    folder.mkdir()
    onnx.save(graph.model(), folder / "model.onnx")
    lines = (encoder / "holdout.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"].split() for line in lines]
    rows = {"input_ids": np.array([[int(word[1:]) for word in text] for text in texts])}
    rows["attention_mask"] = np.ones_like(rows["input_ids"])
    assert rows["input_ids"].shape[1] == TOKENS
    np.savez(folder / "holdout.npz", **rows)
    return {name: array[:1] for name, array in rows.items()}
