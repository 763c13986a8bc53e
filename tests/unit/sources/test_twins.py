from __future__ import annotations

import pytest

from tracklayer.sources.twins import twins


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        ("model.safetensors pytorch_model.bin", "pytorch_model.bin"),
        (
            "model.safetensors tf_model.h5 flax_model.msgpack rust_model.ot",
            "tf_model.h5 flax_model.msgpack rust_model.ot",
        ),
        ("v1-5.safetensors v1-5.ckpt v1-6.ckpt", "v1-5.ckpt"),
        ("adapter_model.safetensors adapter_model.bin", "adapter_model.bin"),
        ("a/model.safetensors a/pytorch_model.bin b/pytorch_model.bin", "a/pytorch_model.bin"),
        (
            "model.fp16.safetensors pytorch_model.fp16.bin pytorch_model.bin",
            "pytorch_model.fp16.bin",
        ),
        # Nothing says that these are the same weights.
        ("model.safetensors training_args.bin optimizer.pt scaler.pkl", ""),
        ("model.safetensors onnx/model.onnx vocab.txt model.pb", ""),
        ("pytorch_model.bin config.json", ""),
        # In shards, on either side.
        (
            "model.safetensors pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin "
            "pytorch_model.bin.index.json",
            "pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin "
            "pytorch_model.bin.index.json",
        ),
        (
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors "
            "model.safetensors.index.json pytorch_model.bin",
            "pytorch_model.bin",
        ),
        (
            "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors "
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json "
            "unet/diffusion_pytorch_model-00001-of-00001.fp16.bin "
            "unet/diffusion_pytorch_model.bin.index.fp16.json",
            "unet/diffusion_pytorch_model-00001-of-00001.fp16.bin "
            "unet/diffusion_pytorch_model.bin.index.fp16.json",
        ),
        # Half of the safetensors is not enough, and an index alone is nothing.
        ("model-00001-of-00002.safetensors pytorch_model.bin", ""),
        ("model.safetensors.index.json pytorch_model.bin", ""),
    ],
)
def test_twins(paths: str, left: str) -> None:
    assert twins(paths.split()) == sorted(left.split())


@pytest.mark.parametrize(
    ("include", "stays"),
    [
        (["*"], False),
        (["*model*"], False),
        (["*.safetensors", "*.json"], False),
        (["*.bin", "*.safetensors"], True),
        (["pytorch_model.bin", "*"], True),
    ],
)
def test_what_was_asked_for_stays(include: list[str], stays: bool) -> None:
    left = twins(["model.safetensors", "pytorch_model.bin"], include)
    assert left == ([] if stays else ["pytorch_model.bin"])
