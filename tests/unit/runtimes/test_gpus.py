from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.runtimes.gpus import visible_gpus


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [("", []), ("-1", []), ("0,2", ["0", "2"]), (" GPU-ab ,1", ["GPU-ab", "1"])],
)
def test_the_variable_limits_what_is_seen(chosen: str, visible: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": chosen}) == visible


def test_without_the_variable_the_devices_are_counted(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ["0", "1"]


def test_without_device_files_nvidia_smi_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: X (UUID: a)'\necho 'GPU 1: X (UUID: b)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    devices = tmp_path / "dev"
    devices.mkdir()
    assert visible_gpus({}, devices) == ["0", "1"]
