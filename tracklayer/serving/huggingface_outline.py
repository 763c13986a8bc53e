"""What tells a Hugging Face folder from others: its files, and the task in its ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from tracklayer.errors import ModelError

CONFIG, TOKENIZER, PROCESSOR = "config.json", "tokenizer.json", "preprocessor_config.json"
"""Of every model; of one that reads texts; of one that sees images."""

CLASSIFIER, TAGGER = "ForSequenceClassification", "ForTokenClassification"
IMAGES = "ForImageClassification"
_ENCODERS = ("Model", "ForMaskedLM", "ForPreTraining")

_OWN = ("model.onnx", "onnx/model.onnx")
"""A model that is there as ONNX too: that is taken."""
_OWN_IR = "openvino/openvino_model.xml"

_SIZE = 4 << 20
"""Bytes that a configuration may have."""


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    :raises ModelError: it is no JSON, or no object.
    """
    found = read_document(file)
    if found is not None and not isinstance(found, dict):
        raise ModelError(f"{file.name} must be a JSON object")
    return found


def read_document(file: Path) -> Any:
    """What a JSON file holds; None if there is no such file.

    :raises ModelError: it is no JSON.
    """
    if not file.is_file():
        return None
    if file.stat().st_size > _SIZE:
        raise ModelError(f"{file.name} is larger than {_SIZE >> 20} MiB")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file.name} is not valid JSON: {error}") from error


def architecture(config: Mapping[str, Any]) -> str:
    """The class of transformers that a ``config.json`` names."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "Model"


def is_image(config: Mapping[str, Any]) -> bool:
    """Is it an image classifier that a ``config.json`` describes?"""
    return architecture(config).endswith(IMAGES)


def is_served(config: Mapping[str, Any]) -> bool:
    """Is the task that a ``config.json`` names one of those here?"""
    return architecture(config).endswith((CLASSIFIER, TAGGER, IMAGES, *_ENCODERS))


def own_onnx(path: Path, there: Container[Path] | None = None) -> Path | None:
    """The ONNX model that a folder has beside its weights.

    :param there: the files that are looked at; None: those on the disk.
    """
    files = (path / name for name in _OWN)
    return next((f for f in files if (f.is_file() if there is None else f in there)), None)


def own_ir(path: Path, there: Container[Path] | None = None) -> Path | None:
    """The OpenVINO model of a folder that has no weights: what was optimised; as above."""
    ir = path / _OWN_IR
    exists = Path.is_file if there is None else there.__contains__
    names = ("model.safetensors", "model.safetensors.index.json")
    return ir if exists(ir) and not any(exists(path / name) for name in names) else None
