from __future__ import annotations

import io
import tarfile

import pytest

from tracklayer.cli.archive import pack
from tracklayer.errors import ProjectError


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}


def test_a_folder_without_what_it_ignores(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text("1")
    (tmp_path / "tracklayer.yaml").write_text("name: a")
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    (tmp_path / "x.tmp").write_text("no")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/big").write_text("no")
    (tmp_path / "again.csv").symlink_to("data/a.csv")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert unpacked(pack(tmp_path)) == {
        ".gitignore": b"*.tmp\n",
        "again.csv": b"1",
        "data/a.csv": b"1",
        "tracklayer.yaml": b"name: a",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_program_stays_one(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path))) as archive:
        assert {m.name: m.mode & 0o111 for m in archive} == {"plain": 0, "run.sh": 0o111}


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "secret").write_text("s")
    (tmp_path / "p/link").symlink_to("../secret")
    with pytest.raises(ProjectError, match="link is a symbolic link"):
        pack(tmp_path / "p")


def test_without_git_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProjectError, match="`git` was not found"):
        pack(tmp_path)
