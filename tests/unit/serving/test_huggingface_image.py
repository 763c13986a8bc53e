"""Against the transformers pipeline and its processors: ``references/make.py`` has the numbers."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from tracklayer.errors import ModelError
from tracklayer.serving import golden, huggingface_graph, huggingface_vision, recognise
from tracklayer.serving.formats import load
from tracklayer.serving.huggingface_pixels import opened, read
from tracklayer.serving.model import Model, RequestError

Case = dict[str, Any]
Make = Callable[..., Path]

FILES, *CASES = json.loads((Path(__file__).parent / "references/images.json").read_text())
IMAGES: list[str] = FILES["files"]
VIT, RESNET = CASES[0], CASES[2]


def names(case: Case) -> str:
    return f"{case['config']['model_type']}-{case['processor']['image_processor_type']}"


def weights(name: str, shape: list[int]) -> Any:
    """As in ``references/make.py``."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    found = random.normal(0, 0.3, shape).astype(np.float32)
    return np.abs(found) if name.endswith("running_var") else found


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def folder(case: Case, processor: Any = None, **changes: Any) -> Path:
        path = tmp_path / "model"
        path.mkdir(exist_ok=True)
        tensors = {name: weights(name, shape) for name, shape in case["tensors"].items()}
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(case["config"] | changes))
        described = case["processor"] | (processor or {})
        (path / "preprocessor_config.json").write_text(json.dumps(described))
        return path

    return folder


def run(model: Model, **feeds: Any) -> dict[str, Any]:
    outputs = model.signature.output_names
    return dict(zip(outputs, model.run(feeds, outputs, model.call()), strict=True))


def see(model: Model, images: list[str]) -> dict[str, Any]:
    return run(model, image=np.array(images, dtype=object))


def file(image: Image.Image, kind: str = "PNG") -> str:
    data = io.BytesIO()
    image.save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


def pixels(case: Case, image: str) -> Any:
    return read(case["processor"])(opened(base64.b64decode(image), "image"))


@pytest.mark.parametrize("case", CASES, ids=names)
def test_the_probabilities_are_those_of_the_pipeline(case: Case, make: Make) -> None:
    folder = make(case)
    assert recognise(folder).name == "huggingface"
    model = load(folder)
    found = see(model, IMAGES)
    expected = np.array(case["probabilities"])
    assert np.allclose(found["probabilities"], expected, rtol=0, atol=1e-5)
    assert found["label"].tolist() == [f"LABEL_{best}" for best in expected.argmax(1)]
    assert found["score"].tolist() == found["probabilities"].max(1).tolist()
    many = see(model, IMAGES * 9)  # more than one run of the network takes
    assert np.allclose(many["probabilities"], np.tile(expected, (9, 1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_the_pixels_are_those_of_the_processor(case: Case) -> None:
    for image, expected in zip(IMAGES, case["sums"], strict=True):
        found = pixels(case, image)
        assert found.dtype == np.float32
        assert np.allclose(found.sum(-1).ravel(), expected, rtol=1e-5, atol=1e-4)


def test_pixels_may_be_given_in_place_of_an_image(make: Make) -> None:
    model = load(make(RESNET))
    signature = model.signature
    assert [tensor.metadata() for tensor in signature.inputs] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1]}
    ]
    assert signature.by_name["pixel_values"].shape == [-1, 3, 33, 33]
    given = np.stack([pixels(RESNET, image) for image in IMAGES])
    signature.check({"pixel_values": given})
    found = run(model, pixel_values=given)["probabilities"]
    assert np.allclose(found, RESNET["probabilities"], rtol=0, atol=1e-5)
    with pytest.raises(RequestError, match="'pixel_values' stands alone"):
        signature.check({"pixel_values": given, "image": np.array(IMAGES, dtype=object)})
    with pytest.raises(RequestError, match="'image' missing"):
        signature.check({})


def test_no_image_has_no_answer(make: Make) -> None:
    found = see(load(make(VIT)), [])
    assert found["probabilities"].shape == (0, 3)
    assert found["label"].shape == (0,)


def test_a_golden_request_has_a_picture(make: Make) -> None:
    made = golden(make(VIT))
    [image] = made.request["inputs"][0]["data"]
    assert Image.open(io.BytesIO(base64.b64decode(image))).format == "PNG"
    made.check(made.response)


def test_one_label_and_several_right_ones_are_sigmoids(make: Make) -> None:
    both = load(make(VIT, problem_type="multi_label_classification"))
    found = see(both, IMAGES[:1])["probabilities"][0]
    expected = np.array(VIT["probabilities"][0])
    odds = np.log(found / (1 - found))
    assert np.allclose(np.exp(odds) / np.exp(odds).sum(), expected, atol=1e-5)


def test_an_onnx_beside_the_weights_is_used(make: Make) -> None:
    folder = make(VIT)
    graph, tensors = huggingface_vision.build(
        VIT["config"], huggingface_graph.Weights([folder / "model.safetensors"])
    )
    model = onnx.load_from_string(graph)
    for initialiser in model.graph.initializer:
        if initialiser.name in tensors:
            initialiser.CopyFrom(
                numpy_helper.from_array(tensors[initialiser.name], initialiser.name)
            )
    onnx.save(model, folder / "model.onnx")
    (folder / "model.safetensors").unlink()
    assert recognise(folder).name == "huggingface"
    found = see(load(folder), IMAGES)
    assert np.allclose(found["probabilities"], VIT["probabilities"], rtol=0, atol=1e-5)
    (folder / "preprocessor_config.json").unlink()
    assert recognise(folder).name == "onnx"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("not base64!", "element 1 is not base64 of an image's file"),
        ("ümlaut", "element 1 is not base64"),
        ("", "element 1 is no image; formats: PNG, JPEG"),
        (base64.b64encode(b"hello, world").decode(), "element 1 is no image; formats: PNG"),
        (file(Image.new("RGB", (8, 8)), "TIFF"), "element 1 is no image"),
        (IMAGES[0][:3000], "element 1: the image is damaged"),
        (IMAGES[1][:1200], "element 1: the image is damaged"),
        (file(Image.new("1", (8000, 8000))), "8000 x 8000 pixels are more than"),
        (file(Image.new("1", (20_000, 20_000))), "damaged: .*decompression bomb"),
    ],
)
def test_what_is_no_picture_is_refused(make: Make, image: str, message: str) -> None:
    model = load(make(VIT))
    with pytest.raises(RequestError, match=message) as refused:
        see(model, [IMAGES[0], image])
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("processor", "changes", "message"),
    [
        ({"image_processor_type": "SamImageProcessor"}, {}, "SamImageProcessor is not served"),
        ({"do_pad": True}, {}, "is not served\n  Served, without padding: Bit"),
        ({"size": {"longest_edge": 4}}, {}, "the size .*longest_edge.* is not served"),
        ({"size": {"shortest_edge": 16}}, {}, "images of every size come out"),
        ({"size": 24}, {}, "does not take the 24 x 24 pixels .* image_size 16"),
        ({"image_std": [0, 1, 1]}, {}, "image_std must be three numbers"),
        ({"image_mean": None}, {}, "image_mean must be three numbers"),
        ({"resample": 77}, {}, "there is no resampling 77"),
        ({}, {"model_type": "swin"}, "type 'swin' are not served .*\n.* convnext, resnet, vit"),
        ({}, {"auto_map": {}}, "code of its own"),
        ({}, {"hidden_act": "silu"}, "the activation 'silu' is not served"),
        ({}, {"num_channels": 1}, "does not take the 16 x 16 pixels"),
        ({}, {"id2label": {"0": "a", "1": "b"}}, "gives 3 scores, and config.json has 2 labels"),
        ({}, {"num_hidden_layers": 3}, "no tensor 'vit.encoder.layer.2"),
        ({}, {"patch_size": [8]}, "patch_size must be a number"),
    ],
)
def test_what_does_not_fit_is_said(
    make: Make, processor: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(make(VIT, processor, **changes))


def test_a_missing_processor_is_said(make: Make) -> None:
    folder = make(VIT)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"preprocessor_config\.json is missing"):
        load(folder)


def test_an_older_processor_has_one_number_as_its_size(make: Make) -> None:
    old = {"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor"}
    found = see(load(make(VIT, {**old, "size": 16})), IMAGES)
    assert np.allclose(found["probabilities"], VIT["probabilities"], rtol=0, atol=1e-5)
