"""Networks with random weights, of the shapes that people serve, as exporters write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CLASSES = 224, 1000


class _Graph:
    """Nodes and weights; batch normalisations are folded into convolutions or not."""

    def __init__(self, *, folded: bool) -> None:
        self._random = np.random.default_rng(0)
        self._folded = folded
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray[Any, Any]] = {}

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, *shape: int, fan: int = 1) -> str:
        name = f"weight_{len(self.weights)}"
        spread = (2 / fan) ** 0.5
        self.weights[name] = self._random.normal(0, spread, shape).astype(np.float32)
        return name

    def constant(self, value: float, *shape: int) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights[name] = np.full(shape, value, np.float32)
        return name

    def conv(
        self, x: str, i: int, o: int, k: int, stride: int = 1, groups: int = 1, act: str = "Relu"
    ) -> str:
        bias = [self.constant(0, o)] if self._folded else []
        kernel = self.weight(o, i // groups, k, k, fan=i // groups * k * k)
        y = self.node(
            "Conv",
            [x, kernel, *bias],
            kernel_shape=[k, k],
            pads=[k // 2] * 4,
            strides=[stride] * 2,
            group=groups,
        )
        if not self._folded:
            norms = [self.constant(value, o) for value in (1, 0, 0, 1)]
            y = self.node("BatchNormalization", [y, *norms])
        return self.act(y, act)

    def act(self, x: str, kind: str) -> str:
        if kind == "Swish":
            return self.node("Mul", [x, self.node("Sigmoid", [x])])
        if kind == "Clip":
            return self.node("Clip", [x, self.constant(0), self.constant(6)])
        return self.node(kind, [x]) if kind else x

    def squeeze(self, x: str, width: int, inner: int) -> str:
        """Squeeze and excitation."""
        y = self.node("GlobalAveragePool", [x])
        one, two = self.weight(inner, width, 1, 1, fan=width), self.weight(width, inner, 1, 1)
        y = self.act(self.node("Conv", [y, one, self.constant(0, inner)]), "Swish")
        y = self.node("Sigmoid", [self.node("Conv", [y, two, self.constant(0, width)])])
        return self.node("Mul", [x, y])

    def save(self, x: str, width: int, folder: Path) -> None:
        pooled = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        self.nodes.append(
            helper.make_node(
                "Gemm",
                [pooled, self.weight(width, CLASSES, fan=width), self.constant(0, CLASSES)],
                ["logits"],
            )
        )
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "network",
            [value("pixels", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
            [value("logits", TensorProto.FLOAT, ["batch", CLASSES])],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", 17)]
        folder.mkdir(parents=True)
        onnx.save(
            helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx"
        )


def mobilenet(folder: Path) -> None:
    """MobileNetV2 (Sandler et al. 2018, table 2), normalisations folded."""
    g = _Graph(folded=True)
    x, width = g.conv("pixels", 3, 32, 3, 2, act="Clip"), 32
    for t, c, n, s in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for number in range(n):
            stride, inner = s if number == 0 else 1, width * t
            y = g.conv(x, width, inner, 1, act="Clip") if t > 1 else x
            y = g.conv(y, inner, inner, 3, stride, groups=inner, act="Clip")
            y = g.conv(y, inner, c, 1, act="")
            x, width = (g.node("Add", [x, y]) if stride == 1 and width == c else y), c
    g.save(g.conv(x, width, 1280, 1, act="Clip"), 1280, folder)


def resnet50(folder: Path) -> None:
    """ResNet-50 (He et al. 2015, table 1), normalisations as they were trained."""
    g = _Graph(folded=False)
    x, width = g.conv("pixels", 3, 64, 7, 2), 64
    x = g.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, count in enumerate((3, 4, 6, 3)):
        inner = 64 << stage
        for number in range(count):
            stride = 2 if number == 0 and stage else 1
            y = g.conv(x, width, inner, 1)
            y = g.conv(y, inner, inner, 3, stride)
            y = g.conv(y, inner, inner * 4, 1, act="")
            same = x if number else g.conv(x, width, inner * 4, 1, stride, act="")
            x, width = g.act(g.node("Add", [y, same]), "Relu"), inner * 4
    g.save(x, width, folder)


def efficientnet(folder: Path) -> None:
    """EfficientNet-B0 (Tan and Le 2019, table 1), normalisations folded."""
    g = _Graph(folded=True)
    x, width = g.conv("pixels", 3, 32, 3, 2, act="Swish"), 32
    for t, c, n, s, k in (
        *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)),
        *((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
    ):
        for number in range(n):
            stride, inner = s if number == 0 else 1, width * t
            y = g.conv(x, width, inner, 1, act="Swish") if t > 1 else x
            y = g.conv(y, inner, inner, k, stride, groups=inner, act="Swish")
            y = g.squeeze(y, inner, max(1, width // 4))
            y = g.conv(y, inner, c, 1, act="")
            x, width = (g.node("Add", [x, y]) if stride == 1 and width == c else y), c
    g.save(g.conv(x, width, 1280, 1, act="Swish"), 1280, folder)


IMAGES: dict[str, Callable[[Path], None]] = {
    "MobileNetV2": mobilenet,
    "ResNet-50": resnet50,
    "EfficientNet-B0": efficientnet,
}


def images(folder: Path, count: int) -> None:
    """Held-out pictures beside a network: smooth ones, since noise is no picture."""
    random = np.random.default_rng(1)
    coarse = random.normal(0, 1, (count, 3, 14, 14)).astype(np.float32)
    np.savez(folder / "holdout.npz", pixels=coarse.repeat(16, 2).repeat(16, 3))


TOKENS = 128


def encoder(folder: Path, count: int, *, layers: int = 6) -> None:
    """A text encoder of DistilBERT's size, as transformers saves it; texts of 128 tokens."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    random = np.random.default_rng(0)
    dim, inner, words = 768, 3072, 30522

    def weight(*shape: int) -> np.ndarray[Any, Any]:
        return random.normal(0, 0.05, shape).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": weight(words, dim),
        "embeddings.position_embeddings.weight": weight(512, dim),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(layers):
        layer = f"transformer.layer.{number}."
        shapes = {f"attention.{name}_lin": (dim, dim) for name in ("q", "k", "v", "out")}
        shapes |= {"ffn.lin1": (inner, dim), "ffn.lin2": (dim, inner)}
        for name, shape in shapes.items():
            tensors |= {
                f"{layer}{name}.weight": weight(*shape),
                f"{layer}{name}.bias": weight(shape[0]),
            }
        norms += [f"{layer}sa_layer_norm", f"{layer}output_layer_norm"]
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(dim, "f4"), f"{name}.bias": np.zeros(dim, "f4")}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "distilbert",
        "architectures": ["DistilBertModel"],
        "dim": dim,
        "n_heads": 12,
        "n_layers": layers,
        "hidden_dim": inner,
        "vocab_size": words,
        "max_position_embeddings": 512,
        "activation": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    known = {f"w{number}": number for number in range(words - 1)} | {"[UNK]": words - 1}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = (
        " ".join(f"w{number}" for number in random.integers(0, words - 1, TOKENS))
        for _ in range(count)
    )
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "holdout.jsonl").write_text(lines)
