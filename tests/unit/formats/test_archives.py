from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import skops.io
from sklearn.linear_model import LogisticRegression

from tracklayer.formats import Format

Tell = Callable[..., Format]
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(30)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture(scope="module")
def saved(harm: object) -> bytes:
    """As torch.save writes it."""
    return zipped(
        {
            "model/data.pkl": pickle.dumps(harm, protocol=2),
            "model/byteorder": b"little",
            "model/data/0": bytes(64),
            "model/version": b"3\n",
        }
    )


def test_torch_save(tell: Tell, saved: bytes) -> None:
    assert tell(saved, "model.safetensors") == Format("pickle (torch.save)", "pickle")


def test_a_reader_that_ignores_case(tell: Tell) -> None:
    assert tell(zipped({"m/DATA.PKL": b"?"})).risk == "pickle"


def test_torch_script_and_export(tell: Tell) -> None:
    script = {"m/constants.pkl": b"\x80\x02).", "m/code/__torch__.py": b"def f(): pass"}
    assert tell(zipped(script)) == Format("pickle (TorchScript)", "pickle")
    assert tell(zipped({"m/archive_format": b"pt2"})) == Format("pickle (torch.export)", "pickle")


@pytest.mark.parametrize("cover", [PNG, b"name,value\n" * 10_000, b"#!/bin/sh\n", b"\x80"])
def test_an_archive_behind_something_else(tell: Tell, saved: bytes, cover: bytes) -> None:
    """Readers of archives begin at the end."""
    with zipfile.ZipFile(io.BytesIO(cover + saved)) as archive:
        assert "model/data.pkl" in archive.namelist()
    assert tell(cover + saved, "picture.png").risk == "pickle"


def test_an_archive_in_the_tensors_of_a_valid_safetensors(tell: Tell, saved: bytes) -> None:
    data = safetensors.numpy.save({"x": np.frombuffer(saved, np.uint8)})
    assert safetensors.numpy.load(data)["x"].tobytes() == saved
    assert tell(data, "model.safetensors").risk == "pickle"
    harmless = zipped({"a.txt": b"a"})
    data = safetensors.numpy.save({"x": np.frombuffer(harmless, np.uint8)})
    assert tell(data) == Format("zip, behind another", "unknown")


def test_an_archive_with_a_comment_that_hides_its_end(tell: Tell, saved: bytes) -> None:
    data = bytearray(saved)
    comment = b"x" * 60_000
    data[-2:] = struct.pack("<H", len(comment))
    assert tell(PNG + bytes(data) + comment).risk == "pickle"
    assert tell(PNG + bytes(data) + b"PK\5\6" + comment[4:]).risk == "pickle", "a second end"


def test_the_mark_of_an_end_by_chance_is_none(tell: Tell) -> None:
    data = safetensors.numpy.save({"x": np.frombuffer(b"PK\5\6" * 100, np.uint8)})
    assert tell(data) == Format("safetensors")


def test_what_cannot_be_looked_into_is_taken_for_the_worst(tell: Tell, saved: bytes) -> None:
    encrypted = bytearray(zipped({"a.txt": b"hello"}))
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.index(mark) + flags] |= 1
    wrong = Format("zip, damaged or encrypted", "pickle")
    assert tell(bytes(encrypted)) == wrong
    assert tell(saved[:-30]) == wrong
    assert tell(b"PK\3\4") == wrong
    assert tell(zipped({"a.txt": b"hello"}).replace(b"hello", b"jello")) == wrong
    differing = zipped({"a.txt": b"hello"}).replace(b"a.txt", b"b.txt", 1)
    assert tell(differing) == wrong, "two names, one for each kind of reader"
    flagged = bytearray(saved)
    flagged[flagged.index(b"PK\1\2") + 8] |= 1
    assert tell(bytes(flagged)).risk == "pickle"


def test_numpy_archives(tell: Tell) -> None:
    data = io.BytesIO()
    np.savez_compressed(data, a=np.arange(100_000), b=np.array(["x"]), c=np.zeros((0, 3)))
    assert tell(data.getvalue()) == Format("npz")
    data = io.BytesIO()
    np.savez(data, a=np.arange(3), b=np.array([{}, None], dtype=object))
    assert tell(data.getvalue()) == Format("NumPy array of objects in npz (b.npy)", "pickle")


def test_skops(tell: Tell, tmp_path: Path) -> None:
    model = LogisticRegression().fit(np.random.default_rng(1).random((20, 3)), [0, 1] * 10)
    skops.io.dump(model, tmp_path / "model", compression=zipfile.ZIP_DEFLATED)
    assert tell((tmp_path / "model").read_bytes()) == Format("skops")


@pytest.mark.parametrize("text", ['{"class_name": "F"}', r'{"class\u005fname": "F"}'])
def test_keras(tell: Tell, text: str) -> None:
    members = {"config.json": text.encode(), "metadata.json": b"{}"}
    assert tell(zipped(members)) == Format("Keras model", "code")


def test_a_model_folder_in_an_archive(tell: Tell) -> None:
    config = json.dumps({"model_type": "bert"}).encode()
    weights = safetensors.numpy.save({"x": np.zeros(100_000)})
    members = {"config.json": config, "model.safetensors": weights, "README.md": b"# A\n"}
    assert tell(zipped(members, zipfile.ZIP_DEFLATED)) == Format("zip")
    assert tell(tarred(members)) == Format("tar")
    assert tell(tarred(members, "w:gz"), "m.tar.gz") == Format("tar in gzip")


def test_the_worst_inside_counts(tell: Tell, harm: object) -> None:
    data = pickle.dumps(harm)
    members = {"a.csv": b"a\n", "x.bin": b"\0\1\2", "b.py": b"import os\n"}
    for pack, kind in ((zipped, "zip"), (tarred, "tar")):
        assert tell(pack(members)) == Format(f"Python source in {kind} (b.py)", "code")
        found = tell(pack(members | {"d\n.png": data}))
        assert found == Format(f"pickle in {kind} (d?.png)", "pickle")
        assert tell(pack({"x.bin": b"\0\1\2"})) == Format(f"binary in {kind} (x.bin)", "unknown")


def test_archives_in_archives(tell: Tell, saved: bytes, harm: object) -> None:
    assert tell(tarred({"m.pt": saved})).risk == "pickle"
    assert tell(zipped({"m.pt": saved}, zipfile.ZIP_DEFLATED)).risk == "pickle"
    assert tell(tarred({"m.pt": saved}, "w:xz")).risk == "pickle"
    data = b"a,b\n"
    for _ in range(3):
        data = zipped({"inner": data})
    assert tell(data) == Format("zip")
    assert tell(zipped({"inner": data})).risk == "unknown"


def test_a_tar_whose_first_name_is_a_pickle(tell: Tell) -> None:
    data = tarred({"cos\nsystem\n(S'true'\ntR.": b"a\n"})
    assert tell(data) == Format("pickle", "pickle")


def test_tars_of_every_kind(tell: Tell) -> None:
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
            info = tarfile.TarInfo("Train/" + "ä" * 40)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"a\n"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        assert tell(data.getvalue()) == Format("tar")
        assert tell(data.getvalue()[:600]).risk in ("pickle", "unknown")


def test_office_documents(tell: Tell) -> None:
    members = {"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"}
    assert tell(zipped(members)) == Format("Office document")
    assert tell(zipped(members | {"xl/vbaProject.bin": b"\0"})).risk == "code"


def test_a_zip_without_members(tell: Tell) -> None:
    assert tell(zipped({})) == Format("zip")
