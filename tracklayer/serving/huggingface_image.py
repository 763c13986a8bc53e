"""Hugging Face image classifiers: an image's bytes, or its pixels, to a label."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving import huggingface_pixels, huggingface_vision
from tracklayer.serving.huggingface_folder import Open, classification, open_network, part
from tracklayer.serving.huggingface_outline import CONFIG, PROCESSOR, read_json
from tracklayer.serving.huggingface_vision import LOGITS, PIXELS
from tracklayer.serving.model import Array, Call, Model, RequestError, Signature, Tensor

if TYPE_CHECKING:
    from tracklayer.serving.huggingface_heads import Classification
    from tracklayer.serving.huggingface_pixels import Processor

IMAGE = "image"
"""Name of the input: BYTES ``[batch]``, each an image's file in base64."""

_IMAGES = 16
"""Images of one run of the network: what bounds its memory."""


def load(
    path: Path, *, threads: int, beside: Sequence[Path] = (), network: Open = open_network
) -> ImageModel:
    """Load the image model of a folder; see :func:`tracklayer.serving.huggingface.load`."""
    config = read_json(path / CONFIG) or {}
    described = read_json(part(path, beside, PROCESSOR))
    if described is None:
        raise ModelError(
            f"{PROCESSOR} is missing: without it no image can be read",
            hint="Save the image processor into the folder: processor.save_pretrained(...).",
        )
    processor, head = huggingface_pixels.read(described), classification(config)
    opened = network(
        path,
        config["model_type"],
        lambda weights: huggingface_vision.build(config, weights),
        threads,
    )
    return ImageModel(processor, head, opened, config.get("image_size"))


class ImageModel:
    """An image processor, a network in an onnxruntime session, and the labels."""

    platform = "huggingface_transformers"

    def __init__(
        self, processor: Processor, head: Classification, network: Model, expected: Any
    ) -> None:
        """
        :param expected: the size of image that the network is made for: one number or two.
        :raises ModelError: the parts do not fit one another.
        """
        if processor.size is None:
            raise ModelError(
                f"{PROCESSOR}: images of every size come out, which cannot be answered together",
                hint="Give it a height and a width, or a crop_size with do_center_crop.",
            )
        takes, gives = network.signature.by_name, network.signature.output_names
        if takes.keys() != {PIXELS} or LOGITS not in gives:
            raise ModelError(
                f"the ONNX model takes {', '.join(takes)} and gives {', '.join(gives)}, "
                f"and not {PIXELS} and {LOGITS}"
            )
        self._processor, self._head, self._network = processor, head, network
        self._size = processor.size
        self.signature = Signature(
            (Tensor(IMAGE, "BYTES", ("batch",), example=_example()),),
            head.outputs,
            instead=Tensor(PIXELS, "FP32", ("batch", 3, *self._size)),
        )
        self._probe(expected)

    def call(self) -> Call:
        """A handle with which a run can be ended."""
        return self._network.call()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        """The named outputs; see :class:`tracklayer.serving.model.Model`."""
        pixels = feeds.get(PIXELS)
        count = len(feeds[IMAGE] if pixels is None else pixels)
        scores = np.empty((count, self._head.width), np.float32)
        for start in range(0, count, _IMAGES):
            rows = slice(start, start + _IMAGES)
            some = self._pixels(feeds[IMAGE], rows) if pixels is None else pixels[rows]
            scores[rows] = self._scores(some, call)
        results = dict(zip(self.signature.output_names, self._head.judge(scores), strict=True))
        return [results[name] for name in outputs]

    def _pixels(self, images: Array, rows: slice) -> Array:
        return np.stack(
            [
                self._processor(huggingface_pixels.opened(*_file(images, index)))
                for index in range(*rows.indices(len(images)))
            ]
        )

    def _scores(self, pixels: Array, call: Call) -> Array:
        [scores] = self._network.run({PIXELS: pixels}, [LOGITS], call)
        return scores

    def _probe(self, expected: Any) -> None:
        """Let the network see one image, so that what does not fit is found here."""
        height, width = self._size
        try:
            scores = self._scores(np.zeros((1, 3, height, width), np.float32), self.call())
        except RequestError as error:
            raise ModelError(
                f"the network does not take the {height} x {width} pixels of {PROCESSOR} "
                f"(config.json has image_size {expected}): {error.message}"
            ) from error
        if scores.shape != (1, self._head.width):
            raise ModelError(
                f"the network gives {scores.shape[-1]} scores, and config.json has "
                f"{self._head.width} labels"
            )


def _file(images: Array, index: int) -> tuple[bytes, str]:
    """The bytes of an image's file, and what the messages call it.

    :raises RequestError: (400) it is not base64.
    """
    field = f"input {IMAGE!r}: element {index}"
    try:
        return base64.b64decode(images[index], validate=True), field
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"{field} is not base64 of an image's file: {error}") from error


def _example() -> str:
    """A picture that is nowhere the same."""
    from PIL import Image

    across, down = np.meshgrid(np.arange(64), np.arange(48))
    colours = np.stack([across * 4, down * 5, (across * down) % 256], axis=2)
    file = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
