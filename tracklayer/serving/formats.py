"""Which model lies in a folder, told by content.

A format is one module and one line in :data:`SERVED`. The module has
``find(files) -> list[Path]``, the models of this format among the regular files of a folder, each
the path of a file or of the folder that it is, read only as far as their outline; and
``load(path, threads=...) -> Model``. Where loading one can run code that came with it, there is
also ``needs(path) -> frozenset[str]``, the words of :data:`ALLOW` that the project must have said.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer.errors import ModelError
from tracklayer.formats import recognise_file

if TYPE_CHECKING:
    from tracklayer.serving.model import Model

ALLOW = ("code",)
"""What a project can allow its models: Python code of its own, which the server then runs."""

SERVED = {
    "handler": "tracklayer.serving.handler",
    "mlflow": "tracklayer.serving.mlflow_model",
    "huggingface": "tracklayer.serving.huggingface",
    "onnx": "tracklayer.serving.onnx",
    "openvino": "tracklayer.serving.openvino",
    "skops": "tracklayer.serving.skops",
}
"""Format -> module, in the order in which they are tried."""

_HANDLER = "A handler.py is the model if it has `def load(folder)` and `def predict(inputs)`."
_EXPORT = (
    "Export the model to ONNX into SM_MODEL_DIR: torch.onnx.export for PyTorch, tf2onnx for "
    "TensorFlow and Keras; for scikit-learn, skops.io.dump does too. "
    "Formats served: " + ", ".join(SERVED) + "."
)


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """What a model folder holds: the format's name, and the model's file or folder.

    ``needs``: words of :data:`ALLOW` without which it is not loaded.
    """

    name: str
    path: Path
    needs: frozenset[str] = frozenset()


def recognise(folder: Path) -> ModelFormat:
    """The format of the one model in ``folder``, by content; nothing is loaded or executed.

    :raises ModelError: the folder is missing or empty, holds several models, a format that is not
        served (pickles among them), nothing that is known, or a link that leads out of it.
    """
    files = list(_files(folder))
    if not files:
        raise ModelError(f"script left no model in SM_MODEL_DIR ({folder} is empty)", hint=_EXPORT)
    for name, dotted in SERVED.items():
        module = importlib.import_module(dotted)
        found: list[Path] = module.find(files)
        if len(found) > 1:
            raise ModelError(
                f"{folder} holds {len(found)} {name} models: "
                + _some([str(path.relative_to(folder)) for path in found]),
                hint="Leave exactly one model in SM_MODEL_DIR.",
            )
        if found:
            needs = module.needs(found[0]) if hasattr(module, "needs") else frozenset()
            return ModelFormat(name, found[0], needs)
    kinds = {file: recognise_file(file) for file in files}
    for file, kind in kinds.items():
        if kind.risk == "pickle":
            raise ModelError(
                f"{file.relative_to(folder)} is a pickle or can hold one ({kind.name}): loading it "
                "can run any code, so it is not served",
                hint=_EXPORT,
            )
    lines = [
        f"{file.relative_to(folder)} ({kind.name}, {file.stat().st_size} bytes)"
        for file, kind in kinds.items()
    ]
    hint = _HANDLER if any(file.name == "handler.py" for file in files) else _EXPORT
    raise ModelError(f"no known model in {folder}; found {_some(lines)}", hint=hint)


def load(folder: Path, *, threads: int = 1, allow: Collection[str] = ()) -> Model:
    """Load the model of ``folder``.

    :param threads: those of one inference.
    :param allow: words of :data:`ALLOW`.
    :raises ModelError: as :func:`recognise`, the model is damaged or cannot be served, or it needs
        what is not allowed.
    """
    found = recognise(folder)
    if refused := found.needs.difference(allow):
        words = ", ".join(sorted(refused))
        raise ModelError(
            f"{found.path.relative_to(folder)} is Python code, which the server would run",
            hint=f"If it is your own, write `deploy: {{allow: [{words}]}}` in tracklayer.yaml.",
        )
    model: Model = importlib.import_module(SERVED[found.name]).load(found.path, threads=threads)
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


def _some(names: list[str]) -> str:
    more = [f"and {len(names) - 10} more"] if len(names) > 10 else []
    return ", ".join(names[:10] + more)
