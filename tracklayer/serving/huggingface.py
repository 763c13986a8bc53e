"""Hugging Face folders: text encoders of the BERT family, and image classifiers.

The weights (safetensors) become an ONNX graph in memory, or the folder's own ONNX is taken.
Neither PyTorch nor transformers is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer.errors import ModelError
from tracklayer.serving.huggingface_outline import (
    CONFIG,
    PROCESSOR,
    TOKENIZER,
    is_image,
    is_served,
    own_ir,
    own_onnx,
    read_json,
)

if TYPE_CHECKING:
    from tracklayer.serving.huggingface_folder import Open
    from tracklayer.serving.model import Model

_SAFE = ".safetensors"


def find(files: Sequence[Path]) -> list[Path]:
    """The folders among those of ``files`` with a model's ``config.json`` and its weights.

    Folders inside of such a one (checkpoints, exports) belong to it.
    """
    there = set(files)
    found = {
        # sentence-transformers may keep the encoder in a folder of its own.
        file.parent.parent if file.parent.parent / "modules.json" in there else file.parent
        for file in files
        if file.name == CONFIG and _is_model(file, there)
    }
    return sorted(path for path in found if not found.intersection(path.parents))


def load(
    path: Path,
    *,
    threads: int = 1,
    beside: Sequence[Path] = (),
    network: Open | None = None,
) -> Model:
    """Load the model of a folder.

    :param beside: other folders in which the tokenizer or image processor may be.
    :param network: how the network between them and the head is opened, if not as
        :func:`tracklayer.serving.huggingface_folder.open_network` does it.
    :raises ModelError: a part of it is missing, damaged, or of a kind that is not served.
    """
    from tracklayer.serving import huggingface_image, huggingface_text
    from tracklayer.serving.huggingface_folder import open_network

    opened = network or open_network
    try:
        if is_image(read_json(path / CONFIG) or {}):
            return huggingface_image.load(path, threads=threads, beside=beside, network=opened)
        return huggingface_text.load(path, threads=threads, beside=beside, network=opened)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model's configuration is not as transformers writes it: {error!r}",
            hint="Save the model again, with save_pretrained.",
        ) from error


def _is_model(config: Path, there: set[Path]) -> bool:
    try:
        found = read_json(config)
    except ModelError:
        return False
    if found is None or not isinstance(found.get("model_type"), str):
        return False
    folder = config.parent
    if own_onnx(folder, there) or own_ir(folder, there):
        # What is no text or image, or another task, is served as the ONNX model that it is.
        needed = folder / (PROCESSOR if is_image(found) else TOKENIZER)
        return needed in there and is_served(found)
    return any(file.parent == folder and file.suffix == _SAFE for file in there)
