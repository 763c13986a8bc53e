from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.packages.accelerator import present


@pytest.mark.parametrize(
    ("device", "there"), [("nvidia0", True), ("kfd", True), ("nvidiactl", False), ("null", False)]
)
def test_a_device_is_an_accelerator_or_not(tmp_path: Path, device: str, there: bool) -> None:
    (tmp_path / device).touch()
    assert present(tmp_path) is there
