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


def archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return data.getvalue()


WEIGHTS = pickle.dumps({"w": [1.0, 2.0]})


def test_onnx_is_recognised_by_content_under_any_name(linear: Path) -> None:
    (linear / "model.onnx").rename(linear / "weights.pkl")
    found = recognise(linear)
    assert (found.name, found.file) == ("onnx", linear / "weights.pkl")


def test_other_files_beside_the_model_do_not_matter(linear: Path) -> None:
    (linear / "checkpoint.pt").write_bytes(WEIGHTS)
    (linear / "labels.txt").write_text("cat\ndog\n")
    assert recognise(linear).file == linear / "model.onnx"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (WEIGHTS, "a pickle"),
        (pickle.dumps(np.arange(3), protocol=0), "a pickle"),
        (pickle.dumps({"a": 1}, protocol=0), "a pickle"),
        (zlib.compress(WEIGHTS), "compressed pickle"),
        (gzip.compress(WEIGHTS), "compressed pickle"),
        (bz2.compress(WEIGHTS), "compressed pickle"),
        (archive("model/data.pkl", "model/data/0"), "torch.save"),
        (archive("model/constants.pkl", "model/code/x.py"), "TorchScript"),
        (archive("model.weights.h5", "config.json"), "Keras"),
        (archive("schema.json"), "skops"),
        (archive("a.npy"), "NumPy"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        ((2).to_bytes(8, "little") + b"{}", "safetensors"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(32), "TensorFlow Lite"),
    ],
)
def test_models_of_other_tools_are_refused_by_name(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=kind) as caught:
        recognise(tmp_path)
    assert "model.onnx is" in str(caught.value)
    assert "Formats served: onnx" in str(caught.value)
    assert "Export the model to ONNX" in str(caught.value)


@pytest.mark.parametrize("name", ["MLmodel", "saved_model.pb"])
def test_folders_of_other_tools_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\x01\x12\x00")
    with pytest.raises(ModelError, match="which is not served"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"class,x\n1,2\n", b"(a) note", b"\x00" * 50, b"{}", b"PK\x03\x04"]
)
def test_unknown_files_are_listed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes.bin").write_bytes(content)
    with pytest.raises(ModelError, match=rf"notes.bin \({len(content)} bytes\)"):
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
    with pytest.raises(ModelError, match=r"2 onnx models: model.onnx .*, sub/other.bin"):
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
    assert recognise(linear).file.resolve() == linear / "model.onnx"


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
