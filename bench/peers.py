"""The references that are installed: each in a virtual environment of its own, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.measure import NotMeasuredError, say
from bench.processes import clean_environment
from tracklayer.files import locked
from tracklayer.packages.index import uv_variables

AIRFLOW = "apache-airflow==3.3.2"
_ONNXRUNTIME = "onnxruntime==1.31.1"  # as we have it: one network, one way to run it

PEERS = {
    "airflow": [AIRFLOW],
    "dag-factory": [AIRFLOW, "dag-factory==1.1.0"],
    "metaflow": ["metaflow==2.19.39"],
    "dagster": ["dagster==1.13.28"],
    "tink": ["tink==1.16.1"],
    "mlserver": ["mlserver==1.7.1", _ONNXRUNTIME],
    "kserve": ["kserve==0.21.0", _ONNXRUNTIME],
    "mlflow": ["mlflow==3.17.2", "onnx==1.23.2", _ONNXRUNTIME],
    "bentoml": ["bentoml==1.4.40", _ONNXRUNTIME],
    "litserve": ["litserve==0.2.19", _ONNXRUNTIME],
    "torch": ["torch==2.13.0", "numpy==2.4.6", "safetensors==0.8.0"],
}
"""Every peer and its version. Those on Airflow get the packages that we run it with."""

_LOCK = Path(__file__).parent.parent / "requirements.lock"
_WITHIN = 900  # seconds


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, which is installed if it is not there.

    :raises NotMeasuredError: it cannot be installed; with the end of what uv said.
    """
    wanted = PEERS[peer]
    constraints = ["--constraints", str(_LOCK)] if AIRFLOW in wanted else []
    marks = [*wanted, sys.version, _LOCK.read_text() if constraints else ""]
    digest = hashlib.sha256("\n".join(marks).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "tracklayer" / "bench" / f"{peer}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    complete = folder / "complete"
    with locked(folder.with_suffix(".lock")):
        if not complete.exists():
            say(f"  installing {', '.join(wanted)}")
            shutil.rmtree(folder, ignore_errors=True)
            _uv(peer, "venv", "--no-project", "--python", sys.executable, str(folder))
            options = ("--compile-bytecode", "--python", str(python))
            _uv(peer, "pip", "install", *options, *constraints, *wanted)
            complete.touch()
    return python


def _uv(peer: str, *arguments: str) -> None:
    from uv import find_uv_bin

    try:
        done = subprocess.run(
            [find_uv_bin(), *arguments],
            env=clean_environment() | uv_variables(),
            capture_output=True,
            text=True,
            timeout=_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotMeasuredError(f"{peer} is not installed after {_WITHIN} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[-500:]
        raise NotMeasuredError(f"{peer} cannot be installed: {said}")
