"""Small models of the kinds that are optimised, with held-out rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Two convolutions and a product on ``pixels`` ``[batch, 3, 24, 24]`` that tell bright corners
    apart: ``digit`` ``[batch]`` and ``probabilities`` ``[batch, 4]``; 400 rows held out."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(0, 0.3, (32, 3, 3, 3)),
        "b1": np.zeros(32),
        "w2": random.normal(0, 0.1, (64, 32, 3, 3)),
        "b2": np.zeros(64),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "w1", "b1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node(
            "AveragePool", ["r2"], ["pooled"], kernel_shape=[12, 12], strides=[12] * 2
        ),
        helper.make_node("ReduceMean", ["pooled"], ["corners"], axes=[1], keepdims=0),
        helper.make_node("Flatten", ["corners"], ["flat"]),
        helper.make_node("MatMul", ["flat", "scale"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["digit"], axis=1, keepdims=0),
    ]
    weights["scale"] = np.eye(4) * 5
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 24, 24])],
        [
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4]),
        ],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "classifier"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    corner = random.integers(0, 4, 400)
    rows = random.random((400, 3, 24, 24))
    for row, at in zip(rows, corner, strict=True):
        y, x = divmod(int(at), 2)
        row[:, y * 12 : y * 12 + 12, x * 12 : x * 12 + 12] += 2
    np.savez(folder / "holdout.npz", pixels=rows.astype(np.float32), label=corner)
    return folder


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """A text encoder of transformers' DistilBERT, two small layers, as it is saved; 40 texts."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    random = np.random.default_rng(0)
    dim, words = 64, 200

    def weight(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.1).astype(np.float32)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": np.ones(dim, "f4"), f"{name}.bias": np.zeros(dim, "f4")}

    tensors = {
        "embeddings.word_embeddings.weight": weight(words, dim),
        "embeddings.position_embeddings.weight": weight(64, dim),
        **norm("embeddings.LayerNorm"),
    }
    for number in range(2):
        layer = f"transformer.layer.{number}."
        shapes = {f"attention.{n}_lin": (dim, dim) for n in ("q", "k", "v", "out")}
        shapes |= {"ffn.lin1": (256, dim), "ffn.lin2": (dim, 256)}
        for name, shape in shapes.items():
            tensors[f"{layer}{name}.weight"] = weight(*shape)
            tensors[f"{layer}{name}.bias"] = weight(shape[0])
        tensors |= norm(f"{layer}sa_layer_norm") | norm(f"{layer}output_layer_norm")
    folder = tmp_path / "sentences"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "distilbert",
        "architectures": ["DistilBertModel"],
        "dim": dim,
        "n_heads": 4,
        "n_layers": 2,
        "hidden_dim": 256,
        "vocab_size": words,
        "max_position_embeddings": 64,
        "activation": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    known = {f"w{number}": number for number in range(words - 1)} | {"[UNK]": words - 1}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = [
        " ".join(f"w{number}" for number in random.integers(0, words - 1, random.integers(5, 30)))
        for _ in range(40)
    ]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "holdout.jsonl").write_text(lines)
    return folder
