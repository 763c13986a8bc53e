"""Which model lies in a folder, told by content.

A format is one module with ``matches(file) -> bool``, which reads only the file's outline, and
``load(file, threads=...) -> Model``; and one line in :data:`SERVED`.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer.errors import ModelError
from tracklayer.serving.foreign import describe

if TYPE_CHECKING:
    from tracklayer.serving.model import Model

SERVED = {"onnx": "tracklayer.serving.onnx"}
"""Format -> module, in the order in which they are tried."""

_EXPORT = (
    "Export the model to ONNX into SM_MODEL_DIR: torch.onnx.export for PyTorch, skl2onnx for "
    "scikit-learn, tf2onnx for TensorFlow and Keras. Formats served: " + ", ".join(SERVED) + "."
)


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """What a model folder holds: the format's name and the model's file."""

    name: str
    file: Path


def recognise(folder: Path) -> ModelFormat:
    """The format of the one model in ``folder``, by content; nothing is loaded or executed.

    :raises ModelError: the folder is missing or empty, holds several models, a format that is not
        served (pickles among them), nothing that is known, or a link that leads out of it.
    """
    files = list(_files(folder))
    if not files:
        raise ModelError(f"script left no model in SM_MODEL_DIR ({folder} is empty)", hint=_EXPORT)
    for name, module in SERVED.items():
        found = [file for file in files if importlib.import_module(module).matches(file)]
        if len(found) > 1:
            raise ModelError(
                f"{folder} holds {len(found)} {name} models: {_names(found, folder)}",
                hint="Leave exactly one model in SM_MODEL_DIR.",
            )
        if found:
            return ModelFormat(name, found[0])
    for file in files:
        if kind := describe(file):
            raise ModelError(
                f"{file.relative_to(folder)} is {kind}, which is not served", hint=_EXPORT
            )
    raise ModelError(f"no known model in {folder}; found {_names(files, folder)}", hint=_EXPORT)


def load(folder: Path, *, threads: int = 1) -> Model:
    """Load the model of ``folder``; ``threads`` are those of one inference.

    :raises ModelError: as :func:`recognise`, or the model is damaged or cannot be served.
    """
    found = recognise(folder)
    model: Model = importlib.import_module(SERVED[found.name]).load(found.file, threads=threads)
    return model


def _files(folder: Path) -> Iterator[Path]:
    """Regular files of a folder in order; a file that links share is given once."""
    root = folder.resolve()
    if not root.is_dir():
        raise ModelError(f"there is no model folder {folder}")
    seen: set[Path] = set()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names + folders):
            path = Path(parent, name)
            target = path.resolve()
            if path.is_symlink() and not target.is_relative_to(root):
                raise ModelError(
                    f"{path.relative_to(folder)} is a link that leads out of the model folder",
                    hint="Copy the file itself into SM_MODEL_DIR.",
                )
            if target in seen or not target.exists() or not stat.S_ISREG(target.stat().st_mode):
                continue
            seen.add(target)
            yield path


def _names(files: list[Path], folder: Path) -> str:
    shown = [f"{file.relative_to(folder)} ({file.stat().st_size} bytes)" for file in files[:10]]
    more = [f"and {len(files) - 10} more"] if len(files) > 10 else []
    return ", ".join(shown + more)
