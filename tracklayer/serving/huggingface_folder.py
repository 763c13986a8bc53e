"""What a Hugging Face folder says of its model: the type, what it answers, how it reads a text.

Read are ``config.json`` and ``tokenizer_config.json`` of transformers, and ``modules.json``,
``sentence_bert_config.json``, ``config_sentence_transformers.json`` and the folders that
``modules.json`` names, of sentence-transformers. Nothing in the folder is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tracklayer.errors import ModelError
from tracklayer.serving.huggingface_encoder import position_rows
from tracklayer.serving.huggingface_heads import POOLINGS, Classification, Embedding, Head

_SIZE = 4 << 20
"""Bytes that a configuration may have."""

_LONGEST = 512
"""Tokens that are read of a text where no configuration says how many."""

_SWITCH = "pooling_mode"
_SWITCHES = {
    f"{_SWITCH}_cls_token": "cls",
    f"{_SWITCH}_max_tokens": "max",
    f"{_SWITCH}_mean_tokens": "mean",
}

_CLASSIFIER = "ForSequenceClassification"
_ENCODERS = ("Model", "ForMaskedLM", "ForPreTraining")


@dataclass(frozen=True)
class Folder:
    """A model's description.

    :param path: where its configuration, weights and tokenizer are.
    :param longest: tokens that are read of a text.
    :param prompt: what stands before every text.
    """

    path: Path
    config: Mapping[str, Any]
    head: Head
    longest: int
    prompt: str = ""
    lower: bool = False

    def prepare(self, text: str) -> str:
        """The text as the tokenizer is to have it."""
        text = self.prompt + text
        return text.lower() if self.lower else text


def read(root: Path) -> Folder:
    """Describe the model in ``root``, the folder of its ``modules.json`` or ``config.json``.

    :raises ModelError: something is missing or wrong there, or of a kind that is not served.
    """
    modules = _modules(root)
    path = _inside(root, modules[0]) if modules else root
    config = read_json(path / "config.json") or {}
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{(path / 'config.json').relative_to(root)} names no model_type")
    sentences = (modules and read_json(path / "sentence_bert_config.json")) or {}
    prompts = (modules and read_json(root / "config_sentence_transformers.json")) or {}
    return Folder(
        path=path,
        config=config,
        head=_head(root, config, modules),
        longest=_longest(path, config, sentences),
        prompt=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), ""),
        lower=bool(sentences.get("do_lower_case")),
    )


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    :raises ModelError: it is no JSON, or no object.
    """
    found = _read_json(file)
    if found is not None and not isinstance(found, dict):
        raise ModelError(f"{file.name} must be a JSON object")
    return found


def _read_json(file: Path) -> Any:
    if not file.is_file():
        return None
    if file.stat().st_size > _SIZE:
        raise ModelError(f"{file.name} is larger than {_SIZE >> 20} MiB")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file.name} is not valid JSON: {error}") from error


def is_served(config: Mapping[str, Any]) -> bool:
    """Is the task that a ``config.json`` names one of those here?"""
    return _architecture(config).endswith((_CLASSIFIER, *_ENCODERS))


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "Model"


def _head(root: Path, config: Mapping[str, Any], modules: list[dict[str, Any]]) -> Head:
    if _architecture(config).endswith(_CLASSIFIER):
        return _classification(config)
    if not is_served(config):
        raise ModelError(
            f"a {_architecture(config)} is not served",
            hint=f"Served: sentence embeddings (a plain model) and ...{_CLASSIFIER}.",
        )
    return _embedding(root, int(config.get("hidden_size") or config.get("dim") or 0), modules)


def _classification(config: Mapping[str, Any]) -> Classification:
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    kind = config.get("problem_type")
    try:
        labels = tuple(str(names[str(number)]) for number in range(len(names)))
    except (KeyError, TypeError) as error:
        raise ModelError("config.json: id2label must name the labels 0, 1, 2, ...") from error
    if kind == "regression":
        raise ModelError("a regression head is not served", hint="Export the model to ONNX.")
    # As the text-classification pipeline of transformers decides it.
    return Classification(labels, kind != "multi_label_classification" and len(labels) > 1)


def _embedding(root: Path, width: int, modules: list[dict[str, Any]]) -> Embedding:
    poolings: tuple[str, ...] = ("mean",)  # what sentence-transformers takes for a plain model
    normalised = False
    for module in modules[1:]:
        kind = str(module.get("type")).rpartition(".")[2]
        if kind == "Pooling":
            poolings = _poolings(read_json(_inside(root, module) / "config.json") or {})
        elif kind == "Normalize":
            normalised = True
        elif kind != "Dropout":
            raise ModelError(
                f"modules.json: the module {kind!r} is not served",
                hint="Served: Transformer, Pooling, Normalize.",
            )
    return Embedding(width, poolings, normalised)


def _poolings(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The poolings of a ``Pooling`` module: ``pooling_mode`` has their names, or, before version 6
    of sentence-transformers, there is a switch for each (``pooling_mode_mean_tokens``).
    """
    found = config.get(_SWITCH)
    if found is None:
        on = [key for key, value in config.items() if key.startswith(f"{_SWITCH}_") and value]
        found = sorted(_SWITCHES.get(key, key) for key in on) or ["mean"]
    modes = tuple(map(str, [found] if isinstance(found, str) else found))
    if not modes or not set(modes) <= set(POOLINGS) or config.get("include_prompt") is False:
        raise ModelError(
            f"this pooling is not served: {', '.join(modes) or 'none'}",
            hint=f"Served: {', '.join(POOLINGS)}, with the prompt.",
        )
    return modes


def _longest(path: Path, config: Mapping[str, Any], sentences: Mapping[str, Any]) -> int:
    tokenizer = read_json(path / "tokenizer_config.json") or {}
    limits = (
        sentences.get("max_seq_length"),
        tokenizer.get("model_max_length"),
        position_rows(config),
    )
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
    return min(known, default=_LONGEST)


def _modules(root: Path) -> list[dict[str, Any]]:
    modules = _read_json(root / "modules.json")
    if modules is None:
        return []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError("modules.json must be an array of objects")
    return modules


def _inside(root: Path, module: Mapping[str, Any]) -> Path:
    path = PurePosixPath(str(module.get("path", "")))
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"modules.json: {path} leads out of the model folder")
    return root / path
