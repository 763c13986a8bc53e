"""Requirements -> a lock, kept: the same requirements need no index a second time."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracklayer.errors import PackagesError
from tracklayer.files import locked, read_record, write_record
from tracklayer.packages import accelerator
from tracklayer.packages.index import no_index, uv_variables
from tracklayer.packages.uv import Uv

# A PyTorch that brings gigabytes which do nothing without an accelerator. Others (xgboost) ask for
# a package of NVIDIA's too: that is theirs to know.
_TORCH = re.compile(r"^torch==(?!.*\+cpu)", re.MULTILINE)
_CUDA = re.compile(r"^(nvidia-|triton==|cuda-)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lock:
    """``text``: sorted ``name==version`` lines; ``backend``: uv's ``--torch-backend``, if any."""

    text: str
    backend: str | None


def lock(
    requirements: Sequence[str],
    *,
    python: str,
    folder: Path,
    backend: str | None,
    uv: Callable[[], Uv],
    interpreter: Callable[[], Path],
) -> Lock:
    """The kept lock of these requirements, or a new one.

    :param folder: where locks are kept, by a digest of all that decides them.
    :raises PackagesError: the requirements cannot be resolved for this machine.
    """
    if not requirements:
        return Lock("", None)
    accelerated = accelerator.present()
    decides = {
        "requirements": list(requirements),
        "python": python,
        "platform": [platform.system(), platform.machine(), *platform.libc_ver()],
        "backend": backend,
        "accelerated": accelerated,
        "index": sorted(uv_variables().items()),
        "no-index": no_index(),
    }
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = folder / f"{digest[:32]}.json"
    with locked(folder / f".{digest[:32]}.lock"):
        record: dict[str, Any] | None = read_record(kept)
        if record is None:
            found = _resolve(uv(), requirements, interpreter(), backend, accelerated)
            record = asdict(found)
            write_record(kept, record)
    return Lock(**record)


def _resolve(
    uv: Uv, requirements: Sequence[str], python: Path, backend: str | None, accelerated: bool
) -> Lock:
    text = uv.compile(requirements, python, backend)
    if backend or accelerated or not _for_cuda(text):
        return Lock(text, backend)
    try:
        text = uv.compile(requirements, python, "cpu")
        why = "it is not where packages come from"
    except PackagesError as error:
        why = error.message
    if _for_cuda(text):
        raise PackagesError(
            "the requirements bring PyTorch with CUDA, this machine has no accelerator, and"
            f" PyTorch's CPU build cannot be had:\n{why}",
            hint="name a version whose CPU build your index has (torch==<version>), or choose the"
            " build yourself: TRACKLAYER_TORCH_BACKEND=cpu, cu128, ...",
        )
    return Lock(text, "cpu")


def _for_cuda(text: str) -> bool:
    return bool(_TORCH.search(text) and _CUDA.search(text))
