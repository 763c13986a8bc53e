"""Against numbers of the transformers library: ``references/make.py`` has made them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tracklayer.errors import ModelError
from tracklayer.serving.formats import load, recognise
from tracklayer.serving.model import Model

Case = dict[str, Any]
Make = Callable[..., Path]

CASES: list[Case] = json.loads((Path(__file__).parent / "references/encoders.json").read_text())
BERT, SHORT = CASES[0], 3


def names(case: Case) -> str:
    config = case["config"]
    return f"{config['model_type']}-{config.get('hidden_act', config.get('activation'))}"


def weights(case: Case) -> dict[str, Any]:
    """As in ``references/make.py``."""
    return {
        name: np.random.default_rng(zlib.crc32(name.encode()))
        .normal(0, 0.3, shape)
        .astype(np.float32)
        for name, shape in case["tensors"].items()
    }


def write(folder: Path, name: str, document: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the folder of a case: words are t4, t5, ...; 2 and 3 stand at a text's ends."""

    def folder(case: Case, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
        path = tmp_path / "model"
        config = {k: v for k, v in (case["config"] | changes).items() if v != "left out"}
        write(path, "config.json", config)
        save_file(weights(case) if tensors is None else tensors, path / "model.safetensors")
        tokenizer = Tokenizer(
            models.WordLevel({f"t{number}": number for number in range(20)}, unk_token="t4")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="t2 $A t3", special_tokens=[("t2", 2), ("t3", 3)]
        )
        tokenizer.save(str(path / "tokenizer.json"))
        return path

    return folder


def texts(case: Case) -> list[str]:
    return [" ".join(f"t{token}" for token in row[1:-1]) for row in case["tokens"]]


def run(model: Model, rows: list[str]) -> dict[str, Any]:
    names = model.signature.output_names
    found = model.run({"text": np.array(rows, dtype=object)}, names, model.call())
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("case", CASES, ids=names)
def test_a_classifier_has_the_scores_of_transformers(case: Case, make: Make) -> None:
    labels = {str(n): f"label {n}" for n in range(len(case["probabilities"][0]))}
    folder = make(case, id2label=labels)
    assert recognise(folder).name == "huggingface"
    model = load(folder)
    found = run(model, texts(case))
    assert np.allclose(found["probabilities"], case["probabilities"], rtol=0, atol=2e-6)
    assert found["score"].tolist() == found["probabilities"].max(1).tolist()
    best = np.argmax(case["probabilities"], axis=1)
    assert found["label"].tolist() == [f"label {number}" for number in best]
    assert [tensor.shape for tensor in model.signature.outputs] == [[-1], [-1], [-1, len(labels)]]


@pytest.mark.parametrize("case", CASES, ids=names)
def test_an_encoder_has_the_numbers_of_transformers(case: Case, make: Make) -> None:
    prefix = next(name for name in case["tensors"] if "word_embeddings" in name)
    prefix = prefix.partition("embeddings.")[0]
    bare = {name.removeprefix(prefix): tensor for name, tensor in weights(case).items()}
    for tensors in (weights(case), bare):
        model = load(make(case, tensors, architectures=["AnyModel"]))
        found = run(model, texts(case))["embedding"]
        assert np.allclose(found, case["mean"], rtol=0, atol=2e-6)


def test_texts_are_answered_alike_in_any_company(make: Make) -> None:
    model = load(make(BERT))
    rows = texts(BERT)
    many = rows * 700  # more tokens than one run of the network takes
    found = run(model, many)["probabilities"]
    assert np.allclose(found, BERT["probabilities"] * 700, rtol=0, atol=2e-6)
    for row, expected in zip(rows, BERT["probabilities"], strict=True):
        assert np.allclose(run(model, [row])["probabilities"], [expected], rtol=0, atol=2e-6)


def test_no_text_has_no_answer(make: Make) -> None:
    found = run(load(make(BERT)), [])
    assert {name: array.shape for name, array in found.items()} == {
        "label": (0,),
        "score": (0,),
        "probabilities": (0, 3),
    }


def test_a_text_is_cut_where_the_positions_end(make: Make) -> None:
    model = load(make(BERT))
    long = [" ".join(["t7"] * count) for count in (38, 39, 500)]
    first, second, third = run(model, long)["probabilities"]
    assert np.allclose(first, second, atol=1e-6)
    assert np.allclose(first, third, atol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_widened(make: Make, kind: str) -> None:
    import ml_dtypes

    dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[kind]
    half = {name: tensor.astype(dtype) for name, tensor in weights(BERT).items()}
    wide = {name: tensor.astype(np.float32) for name, tensor in half.items()}
    found = run(load(make(BERT, half)), texts(BERT))["probabilities"]
    expected = run(load(make(BERT, wide)), texts(BERT))["probabilities"]
    assert (found == expected).all()


def test_weights_in_several_files_are_found_by_their_index(make: Make) -> None:
    tensors = weights(BERT)
    parts = [dict(list(tensors.items())[half::2]) for half in (0, 1)]
    folder = make(BERT, {})
    (folder / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file(part, folder / file)
        index |= dict.fromkeys(part, file)
    write(folder, "model.safetensors.index.json", {"weight_map": index})
    found = run(load(folder), texts(BERT))["probabilities"]
    assert np.allclose(found, BERT["probabilities"], rtol=0, atol=2e-6)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002.safetensors are missing"):
        load(folder)


def test_old_names_of_a_norm_are_known(make: Make) -> None:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in weights(BERT).items()
    }
    assert old.keys() != BERT["tensors"].keys()
    found = run(load(make(BERT, old)), texts(BERT))["probabilities"]
    assert np.allclose(found, BERT["probabilities"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "type 'llama' are not served from safetensors"),
        ({"auto_map": {"AutoModel": "x--y.Z"}}, "code of its own .auto_map in config.json."),
        ({"hidden_act": "swiglu"}, "activation 'swiglu' is not served"),
        ({"position_embedding_type": "relative_key"}, "relative positions and decoders"),
        ({"is_decoder": True}, "relative positions and decoders"),
        ({"num_attention_heads": 5}, "hidden_size is 12 and num_attention_heads 5"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a number from 1 on"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers must be a number from 1 on, not 'two'"),
        ({"num_hidden_layers": 3}, r"no tensor 'bert.encoder.layer.2.attention.self.query.weight'"),
        ({"max_position_embeddings": "left out"}, "max_position_embeddings must be a number"),
        (
            {"id2label": {str(n): "x" for n in range(4)}},
            "gives 3 numbers, and config.json promises 4",
        ),
        ({"hidden_size": 24}, "hidden_size is 24 .* have a width of 12"),
    ],
)
def test_what_is_not_served_is_said(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(make(BERT, **changes))


def test_damaged_weights_are_said(make: Make) -> None:
    folder = make(BERT)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model.safetensors is damaged"):
        load(folder)


def test_weights_of_another_shape_are_said(make: Make) -> None:
    tensors = weights(BERT)
    tensors["bert.encoder.layer.1.output.dense.weight"] = np.zeros((12, 15), np.float32)
    with pytest.raises(ModelError, match="bert cannot be loaded"):
        load(make(BERT, tensors))
