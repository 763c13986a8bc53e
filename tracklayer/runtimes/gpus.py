"""The accelerators that this process may use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def visible_gpus(
    environment: Mapping[str, str] | None = None, devices: Path = Path("/dev")
) -> list[str]:
    """Names of the NVIDIA devices as ``CUDA_VISIBLE_DEVICES`` takes them.

    That variable limits them; else the device files are counted, else ``nvidia-smi`` is asked.
    """
    chosen = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    files = [p for p in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
    return [str(number) for number in range(len(files) or _listed())]


def _listed() -> int:
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
