"""Modules of this package that do one thing in a process of their own and say what it took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.measure import NotMeasuredError
from bench.processes import clean_environment

ROOT = Path(__file__).parent.parent


def answer(module: str, *arguments: object, python: Path | None = None) -> dict[str, Any]:
    """Run ``python -m bench.<module> ARGUMENTS`` and read the JSON that it prints.

    :param python: the interpreter; this one if there is none.
    :raises NotMeasuredError: it failed; with the last that it said.
    """
    with start(module, *arguments, python=python) as child:
        said, complaint = child.communicate()
    if child.returncode:
        last = complaint.strip().rpartition("\n")[2]
        raise NotMeasuredError(f"bench.{module} exited with {child.returncode}: {last}")
    found: dict[str, Any] = json.loads(said)
    return found


def start(module: str, *arguments: object, python: Path | None = None) -> subprocess.Popen[str]:
    """Start ``python -m bench.<module> ARGUMENTS``; what it prints goes into pipes."""
    return subprocess.Popen(
        [str(python or sys.executable), "-m", f"bench.{module}", *map(str, arguments)],
        env=clean_environment(),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
