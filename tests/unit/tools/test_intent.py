"""The note that is written before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import TerraformError
from tracklayer.tools.intent import Intent, write_private


def test_written_and_read(tmp_path: Path) -> None:
    assert Intent.read(tmp_path) is None
    intent = Intent.now("apply", Path("/roots/local"), {"project": "digits", "run": "r1"})
    intent.write(tmp_path)
    assert Intent.read(tmp_path) == intent
    assert (tmp_path / "intent.json").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["intent.json"]


@pytest.mark.parametrize("text", ["", "{", '{"goal": "explode"}'])
def test_a_damaged_note_is_not_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "intent.json").write_text(text)
    with pytest.raises(TerraformError, match="cannot be read"):
        Intent.read(tmp_path)


def test_a_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("open to all")
    path.chmod(0o644)
    (tmp_path / ".file.new").write_text("left by a crash")
    write_private(path, "secret")
    assert path.read_text() == "secret"
    assert path.stat().st_mode & 0o777 == 0o600
