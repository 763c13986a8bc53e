from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from tracklayer.errors import ModelError
from tracklayer.serving import recognise
from tracklayer.serving.formats import load


def archive(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def numbers() -> bytes:
    data = io.BytesIO()
    np.savez(data, a=np.arange(3))
    return data.getvalue()


WEIGHTS = pickle.dumps({"w": [1.0, 2.0]})


def test_onnx_is_recognised_by_content_under_any_name(linear: Path) -> None:
    (linear / "model.onnx").rename(linear / "weights.pkl")
    found = recognise(linear)
    assert (found.name, found.path) == ("onnx", linear / "weights.pkl")


def test_other_files_beside_the_model_do_not_matter(linear: Path) -> None:
    (linear / "checkpoint.pt").write_bytes(WEIGHTS)
    (linear / "labels.txt").write_text("cat\ndog\n")
    assert recognise(linear).path == linear / "model.onnx"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (WEIGHTS, "pickle"),
        (pickle.dumps(np.arange(3), protocol=0), "pickle"),
        (pickle.dumps({"a": 1}, protocol=0), "pickle"),
        (zlib.compress(WEIGHTS), "pickle in zlib"),
        (gzip.compress(WEIGHTS), "pickle in gzip"),
        (bz2.compress(WEIGHTS), "pickle in bzip2"),
        (archive(**{"model/data.pkl": WEIGHTS}), r"pickle \(torch.save\)"),
        (archive(**{"model/constants.pkl": WEIGHTS}), r"pickle \(TorchScript\)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    ],
)
def test_a_pickle_is_refused_by_its_content(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(ModelError, match=rf"model.onnx is a pickle or .* \({kind}\)") as caught:
        recognise(tmp_path)
    assert "Export the model to ONNX" in str(caught.value)
    assert "onnx" in str(caught.value).partition("Formats served: ")[2]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty file"),
        (b"class,x\n1,2\n", "text"),
        (b"(a) note", "text"),
        (b"\x00" * 50, "binary"),
        (archive(**{"config.json": b'{"class_name": "Functional"}'}), "Keras model"),
        (numbers(), "npz"),
        ((2).to_bytes(8, "little") + b"{}", "safetensors"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(32), "TensorFlow Lite"),
        (b"\x08\x01\x12\x00", "TensorFlow SavedModel"),
    ],
)
def test_what_is_not_served_is_listed(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(
        ModelError, match=rf"no known model .* model.onnx \({kind}, {len(content)} bytes\)"
    ):
        recognise(tmp_path)


def test_an_empty_folder_has_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="script left no model in SM_MODEL_DIR"):
        recognise(tmp_path)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        recognise(tmp_path / "nowhere")


def test_two_models_are_one_too_many(linear: Path) -> None:
    (linear / "sub").mkdir()
    (linear / "sub" / "other.bin").write_bytes((linear / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match=r"2 onnx models: model\.onnx, sub/other\.bin"):
        recognise(linear)


@pytest.mark.parametrize("left", [0.3, 0.6, 0.9])
def test_a_model_that_was_cut_off_is_damaged(linear: Path, left: float) -> None:
    file = linear / "model.onnx"
    os.truncate(file, int(file.stat().st_size * left))
    with pytest.raises(ModelError, match="damaged ONNX model"):
        recognise(linear)


def test_noise_inside_the_graph_is_a_model_error(linear: Path) -> None:
    file = linear / "model.onnx"
    data = bytearray(file.read_bytes())
    data[20:60] = b"\xff" * 40
    file.write_bytes(data)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(linear)


def test_a_link_out_of_the_folder_is_refused(linear: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (linear / "data").symlink_to("../secret")
    with pytest.raises(ModelError, match="data is a link that leads out"):
        recognise(linear)


def test_a_linked_folder_outside_is_refused(linear: Path, tmp_path: Path) -> None:
    (linear / "up").symlink_to("..")
    with pytest.raises(ModelError, match="up is a link that leads out"):
        recognise(linear)


def test_a_link_inside_the_folder_is_no_second_model(linear: Path) -> None:
    (linear / "latest").symlink_to("model.onnx")
    assert recognise(linear).path.resolve() == linear / "model.onnx"


def test_external_data_beside_the_model_is_loaded(linear: Path) -> None:
    model = onnx.load(linear / "model.onnx")
    onnx.save(
        model,
        linear / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (linear / "weights.bin").stat().st_size == 48
    loaded = load(linear)
    x = np.zeros((1, 4), dtype=np.float32)
    [y] = loaded.run({"x": x}, ["y"], loaded.call())
    assert np.allclose(y, 1 / 3)
    (linear / "weights.bin").unlink()
    with pytest.raises(ModelError, match="does not exist"):
        load(linear)


def test_external_data_cannot_lie_outside(linear: Path, tmp_path: Path) -> None:
    model = onnx.load(linear / "model.onnx")
    onnx.save(
        model,
        linear / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (linear / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(linear / "model.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    (linear / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(linear)
