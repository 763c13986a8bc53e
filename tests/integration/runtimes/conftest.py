"""Jobs of this machine, in a folder of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracklayer.runtimes import Job
from tracklayer.runtimes.orphans import marked


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    code = tmp_path / "code"
    code.mkdir()

    def made(script: str, **more: Any) -> Job:
        (code / "train.py").write_text(script)
        values: dict[str, Any] = {
            "name": "digits-1-train",
            "folder": tmp_path / "job",
            "argv": ["-S", "train.py"],
            "python": Path(sys.executable),
            "code": code,
            "timeout": 60,
            "grace": 1,
        }
        return Job(**(values | more))

    yield made
    assert marked("TRACKLAYER_JOB", str(tmp_path / "job")) == []
