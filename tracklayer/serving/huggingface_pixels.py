"""From the bytes of an image to what an image model takes, as ``preprocessor_config.json`` says.

Source: the image processors of transformers with the Pillow backend
(https://github.com/huggingface/transformers, ``image_processing_backends.py``).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklayer.errors import ModelError
from tracklayer.serving.model import Array, RequestError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What an image may be, as Pillow calls it; others have decoders that saw less of the world."""

_PIXELS = 50_000_000
"""Pixels that an image may have, before any is decoded."""

_WARPED = 384
"""Edge from which on ConvNeXT's images are not cropped."""

_SHORTEST, _SQUARE = ("Bit", "ConvNext"), ("DeiT", "ViT")
"""Processors that are served: a size that is one number is their shortest edge, or every edge."""


@dataclass(frozen=True)
class Processor:
    """What is done with an image before a network gets it.

    :param resize: height and width, or the length of the shortest edge; None: left as it is.
    :param resample: number of the filter in Pillow's ``Resampling``.
    :param crop: height and width of what is kept, from the middle; None: all.
    :param factor: what the values 0 to 255 are multiplied with.
    :param mean: of each channel, taken away from it; then it is divided by ``std``.
    """

    resize: tuple[int, int] | int | None
    resample: int
    crop: tuple[int, int] | None
    factor: float
    mean: Array
    std: Array

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of what comes out; None: they depend on the image."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    def __call__(self, image: Image.Image) -> Array:
        """FP32 ``[3, height, width]`` of an RGB image."""
        from PIL.Image import Resampling

        if self.resize is not None:
            height, width = _target(self.resize, image.height, image.width)
            image = image.resize((width, height), Resampling(self.resample))
        if self.crop:
            height, width = self.crop
            # Below zero where the image is the smaller one: it gets a black edge.
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, dtype=np.float32)
        scale = (self.factor / self.std).astype(np.float32)
        shift = (self.mean / self.std).astype(np.float32)
        return np.ascontiguousarray((pixels * scale - shift).transpose(2, 0, 1))


def read(config: Mapping[str, Any]) -> Processor:
    """The processor that a ``preprocessor_config.json`` describes.

    :raises ModelError: it is not one that is served.
    """
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "ViT")
    kind = re.sub(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", named)
    if kind not in (*_SHORTEST, *_SQUARE) or config.get("do_pad"):
        known = ", ".join(f"{name}ImageProcessor" for name in sorted((*_SHORTEST, *_SQUARE)))
        raise ModelError(
            f"preprocessor_config.json: {named} is not served",
            hint=f"Served, without padding: {known}.",
        )
    resize, crop = None, None
    if config.get("do_resize", True):
        resize = _size(config.get("size"), square=kind in _SQUARE)
    if config.get("do_center_crop", False):
        edges = _size(config.get("crop_size"), square=True)
        crop = edges if isinstance(edges, tuple) else (edges, edges)
    if kind == "ConvNext" and isinstance(resize, int):
        edge, kept = resize, float(config.get("crop_pct") or 224 / 256)
        resize = (edge, edge)
        if edge < _WARPED:
            resize, crop = int(edge / kept), (edge, edge)
    resample = config.get("resample", 3 if kind == "ConvNext" else 2)
    if resample not in range(6):
        raise ModelError(f"preprocessor_config.json: there is no resampling {resample!r}")
    normalised = config.get("do_normalize", True)
    return Processor(
        resize=resize,
        resample=resample,
        crop=crop,
        factor=float(config.get("rescale_factor", 1 / 255))
        if config.get("do_rescale", True)
        else 1,
        mean=_channels(config, "image_mean") if normalised else np.zeros(3),
        std=_channels(config, "image_std") if normalised else np.ones(3),
    )


def opened(data: bytes, field: str) -> Image.Image:
    """The RGB image in the bytes of a file; turned as its EXIF data says.

    :raises RequestError: (400) it is no image, too large, or damaged.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > _PIXELS:
            raise RequestError(
                400, f"{field}: {image.width} x {image.height} pixels are more than {_PIXELS}"
            )
        return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise RequestError(400, f"{field} is no image; formats: {known}") from None
    # What Pillow's decoders raise for a damaged file.
    except (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
        raise RequestError(400, f"{field}: the image is damaged: {error}") from error


def _target(resize: tuple[int, int] | int, height: int, width: int) -> tuple[int, int]:
    if isinstance(resize, tuple):
        return resize
    if width <= height:
        return int(resize * height / width), resize
    return resize, int(resize * width / height)


def _size(value: object, *, square: bool) -> tuple[int, int] | int:
    if isinstance(value, int) and value > 0:
        return (value, value) if square else value
    if isinstance(value, dict):
        known = {key: edge for key, edge in value.items() if edge}
        if known.keys() == {"height", "width"}:
            return int(known["height"]), int(known["width"])
        if known.keys() == {"shortest_edge"}:
            return int(known["shortest_edge"])
    raise ModelError(f"preprocessor_config.json: the size {value!r} is not served")


def _channels(config: Mapping[str, Any], key: str) -> Array:
    values = np.array(config.get(key), dtype=np.float64)
    wrong = not np.isfinite(values).all() or (key == "image_std" and not values.all())
    if values.shape not in ((), (3,)) or wrong:
        raise ModelError(f"preprocessor_config.json: {key} must be three numbers, not {values}")
    return np.broadcast_to(values, 3)
