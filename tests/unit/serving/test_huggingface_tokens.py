"""Entities, against those of the transformers pipeline: ``references/make.py`` has made them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tracklayer.errors import ModelError
from tracklayer.serving import golden
from tracklayer.serving.formats import load, recognise
from tracklayer.serving.model import Model

Case = dict[str, Any]
Make = Callable[..., Path]

CASES: list[Case] = json.loads((Path(__file__).parent / "references/taggers.json").read_text())
NAMES = [case["config"]["model_type"] for case in CASES]
KEYS = {"row", "label", "score", "word", "start", "end"}


def weights(name: str, shape: list[int]) -> Any:
    """As in ``references/make.py``."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    found = random.normal(0, 0.3, shape).astype(np.float32)
    if name.lower().endswith("norm.weight"):
        return found + 1
    return found * 4 if "word_embeddings" in name or "classifier" in name else found


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def folder(case: Case, **changes: Any) -> Path:
        path = tmp_path / "model"
        path.mkdir(exist_ok=True)
        tensors = {name: weights(name, shape) for name, shape in case["tensors"].items()}
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(case["config"] | changes))
        (path / "tokenizer.json").write_text(json.dumps(case["tokenizer"]))
        described = {"unk_token": "[UNK]", "model_max_length": 38}
        (path / "tokenizer_config.json").write_text(json.dumps(described))
        return path

    return folder


def entities(model: Model, texts: list[str]) -> list[dict[str, Any]]:
    feeds = {"text": np.array(texts, dtype=object)}
    names = model.signature.output_names
    columns = [array.tolist() for array in model.run(feeds, names, model.call())]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return (
        found.keys() == KEYS
        and found["label"] == expected["entity_group"]
        and abs(found["score"] - expected["score"]) < 1e-5
        and all(found[key] == expected[key] for key in ("word", "start", "end"))
    )


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_entities_are_those_of_the_pipeline(case: Case, make: Make) -> None:
    folder = make(case)
    assert recognise(folder).name == "huggingface"
    model = load(folder)
    expected = [(row, each) for row, found in enumerate(case["entities"]) for each in found]
    assert len({each["entity_group"] for _, each in expected}) > 1
    found = entities(model, case["texts"])
    assert [each["row"] for each in found] == [row for row, _ in expected]
    assert all(same(each, known) for each, (_, known) in zip(found, expected, strict=True))
    for row, text in enumerate(case["texts"]):
        alone = entities(model, [text])
        assert {each["row"] for each in alone} <= {0}
        known = case["entities"][row]
        assert all(same(each, other) for each, other in zip(alone, known, strict=True))


def test_its_signature_has_one_row_an_entity(make: Make) -> None:
    model = load(make(CASES[0]))
    shapes = {tensor.name: tensor.dims for tensor in model.signature.outputs}
    assert shapes == dict.fromkeys(KEYS, ("entities",))
    assert model.signature.inputs[0].dims == ("batch",)


def test_no_text_and_no_entity_have_no_rows(make: Make) -> None:
    labels = {str(number): "O" for number in range(6)}
    model = load(make(CASES[0], id2label=labels))
    several: tuple[list[str], ...] = ([], CASES[0]["texts"])
    for texts in several:
        feeds = {"text": np.array(texts, dtype=object)}
        found = model.run(feeds, model.signature.output_names, model.call())
        assert [array.shape for array in found] == [(0,)] * 6
        kinds = [array.dtype.str[1:] for array in found]
        assert kinds == ["i8", "O", "f4", "O", "i8", "i8"]


def test_a_golden_request_is_made_and_passed(make: Make) -> None:
    made = golden(make(CASES[0]))
    by_name = {output["name"]: output for output in made.response["outputs"]}
    assert len(by_name["word"]["data"]) > 1
    made.check(made.response)


def test_outputs_are_given_in_the_order_asked_for(make: Make) -> None:
    model = load(make(CASES[0]))
    feeds = {"text": np.array(CASES[0]["texts"][:1], dtype=object)}
    starts, words = model.run(feeds, ["start", "word"], model.call())
    assert starts.tolist() == [each["start"] for each in CASES[0]["entities"][0]]
    assert words.tolist() == [each["word"] for each in CASES[0]["entities"][0]]


def test_labels_that_the_network_does_not_have_are_said(make: Make) -> None:
    with pytest.raises(ModelError, match=r"the network gives 6 numbers, .* promises 5"):
        load(make(CASES[0], id2label={str(number): "O" for number in range(5)}))
