"""Schemes of our own and of others, imported when they are needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import parse, registry


def package(folder: Path, name: str, value: str) -> None:
    """An installed package, as far as entry points are concerned."""
    meta = folder / f"{name}_connector-1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-connector\nVersion: 1\n")
    (meta / "entry_points.txt").write_text(f"[tracklayer.sources]\n{name} = {value}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "warehouse.py").write_text(
        "class Warehouse:\n"
        "    @classmethod\n"
        "    def parse(cls, handle):\n"
        "        return ('a warehouse', handle)\n"
    )
    package(tmp_path, "warehouse", "warehouse:Warehouse")
    package(tmp_path, "broken", "not_there:Nothing")
    package(tmp_path, "s3", "warehouse:Warehouse")
    registry._connectors.cache_clear()
    yield tmp_path
    registry._connectors.cache_clear()


def test_a_connector_of_another_package(installed: Path) -> None:
    found: object = parse("warehouse:shelf/3")
    assert found == ("a warehouse", "warehouse:shelf/3")
    assert type(parse("s3://bucket/")).__name__ == "S3Source"  # ours cannot be replaced
    with pytest.raises(SourceError, match=r"the connector of broken: .* cannot be imported"):
        parse("broken:x")
    with pytest.raises(SourceError, match="Did you mean warehouse:") as caught:
        parse("warehous:x")
    assert "broken:" in str(caught.value)


def test_nothing_heavy_is_imported_for_nothing() -> None:
    program = (
        "import sys, tracklayer.sources as s; s.parse('path:x')\n"
        "print([m for m in ('boto3', 'huggingface_hub', 'kaggle', 'tracklayer.sources.git',"
        " 'tracklayer.sources.s3') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
