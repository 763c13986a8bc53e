"""MLflow models: a folder with a file ``MLmodel``, which names what is in it.

Served is what needs no code of the model's: ONNX, scikit-learn in a skops file, and transformers.
MLflow itself is not loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer.errors import ModelError
from tracklayer.serving.huggingface_outline import CONFIG

if TYPE_CHECKING:
    from tracklayer.serving.model import Model

FILE = "MLmodel"
_SIZE = 16 << 20

_SERVED = "onnx, sklearn with serialization_format skops, transformers"


def find(files: Sequence[Path]) -> list[Path]:
    """The folders of MLflow models among those of ``files``; what is in one belongs to it."""
    found = {file.parent for file in files if file.name == FILE and _is_model(file)}
    return sorted(path for path in found if not found.intersection(path.parents))


def load(path: Path, *, threads: int = 1) -> Model:
    """Load the model of a folder.

    :raises ModelError: it is damaged, or of a flavour that is not served.
    """
    from tracklayer.serving import huggingface, onnx, skops
    from tracklayer.serving.mlflow_signature import inputs_of

    document = _document(path)
    flavours = document["flavors"]
    if "onnx" in flavours:
        return onnx.load(_inside(path, flavours["onnx"].get("data")), threads=threads)
    sklearn = flavours.get("sklearn") or {}
    if sklearn.get("serialization_format") == "skops":
        file = _inside(path, sklearn.get("pickled_model"))
        return skops.load(file, threads=threads, inputs=inputs_of(path, document))
    if "transformers" in flavours:
        model = _inside(path, flavours["transformers"].get("model_binary"))
        parts = sorted(part for part in (path / "components").glob("*") if part.is_dir())
        if not (model / CONFIG).is_file():
            raise ModelError(
                f"{FILE}: the weights of the model are not in the folder",
                hint="Save it with save_pretrained=True, and a whole model rather than an adapter.",
            )
        return huggingface.load(model, threads=threads, beside=parts)
    known = ", ".join(name for name in flavours if name != "python_function") or "python_function"
    raise ModelError(
        f"MLflow models of the flavour {known} are not served: loading one runs code or a pickle",
        hint=f"Served: {_SERVED}. Save the model as one of these, or serve it with a handler.py.",
    )


def _is_model(file: Path) -> bool:
    with file.open("rb") as stream:
        return b"flavors:" in stream.read(_SIZE)


def _document(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load((path / FILE).read_bytes())
    except yaml.YAMLError as error:
        raise ModelError(f"{FILE} is no valid YAML: {error}") from error
    flavours = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavours, dict) or not all(isinstance(f, dict) for f in flavours.values()):
        raise ModelError(f"{FILE} names no flavors", hint="Save the model again, with MLflow.")
    return dict(document)


def _inside(path: Path, name: object) -> Path:
    """A file or folder of the model."""
    found = path / str(name)
    if not isinstance(name, str) or not found.resolve().is_relative_to(path.resolve()):
        raise ModelError(f"{FILE}: {name!r} does not lie in the model's folder")
    if not found.exists():
        raise ModelError(f"{FILE} names {name}, which is not there")
    return found
