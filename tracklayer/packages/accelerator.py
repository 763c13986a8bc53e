"""Is there something here that PyTorch's CUDA or ROCm builds could use?"""

from __future__ import annotations

from pathlib import Path


def present(devices: Path = Path("/dev")) -> bool:
    """An NVIDIA or AMD device, or the one of WSL."""
    return any(
        next(devices.glob(pattern), None) is not None for pattern in ("nvidia[0-9]*", "kfd", "dxg")
    )
