from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracklayer.packages import accelerator
from tracklayer.packages.locks import lock
from tracklayer.packages.uv import Uv


def test_pytorchs_cpu_build_is_what_a_machine_without_an_accelerator_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "present", lambda: False)  # this machine may have one
    asked = []

    def uv() -> Uv:
        asked.append(1)
        return Uv(tmp_path, lambda line: None)

    for _ in range(2):
        found = lock(
            ["torch==2.13.0"],
            python="3.11",
            folder=tmp_path / "locks",
            backend=None,
            uv=uv,
            interpreter=lambda: Path(sys.executable),
        )
        assert "torch==2.13.0" in found.text
        assert "nvidia" not in found.text
        assert "://" not in found.text
    assert len(asked) == 1, "the second time it is kept"
