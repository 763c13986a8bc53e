"""Virtual environments, shared by the content of their lock."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tracklayer.errors import PackagesError
from tracklayer.files import locked, read_record, write_record, writing
from tracklayer.packages.locks import lock as lock_of
from tracklayer.packages.requirements import check
from tracklayer.packages.uv import Uv

_VERSION = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")
_MARKER = "complete.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A virtual environment that is complete.

    :param python: its interpreter.
    :param lock: ``name==version`` lines, sorted.
    :param digest: ``sha256:`` of the lock and the Python version.
    :param cached: it was there already.
    """

    python: Path
    lock: str
    digest: str
    cached: bool


def prepare(
    requirements: Sequence[str],
    *,
    python: str,
    environments: Path,
    torch_backend: str | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Environment:
    """Resolves the requirements once, and installs each lock once.

    Packages come from where pip is set up to look. Of two callers that want the same
    environment at the same time, one builds it and the other waits.

    :param python: version, such as ``3.11``.
    :param environments: folder of all environments, and of the locks.
    :param torch_backend: uv's ``--torch-backend``; default: PyTorch's CPU build where there is no
        accelerator.
    :param on_line: gets what uv says.
    :raises PackagesError: a requirement is wrong, or cannot be resolved or installed.
    :raises StoreError: the disk is full; the half-built environment is gone.
    :raises PlatformError: the folder cannot be written.
    """
    if not _VERSION.fullmatch(python):
        raise PackagesError(
            f"packages.python: {python!r} is not a version of Python", hint='such as "3.11"'
        )
    checked = check(requirements)

    @cache
    def uv() -> Uv:
        return Uv(environments, on_line or _silent)

    @cache
    def interpreter() -> Path:
        return _own(python) or uv().find_python(python)

    with writing(environments):
        environments.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_of(
            checked,
            python=python,
            folder=environments / "locks",
            backend=torch_backend,
            uv=uv,
            interpreter=interpreter,
        )
        digest = hashlib.sha256(f"{lock.text}\n{python}\n".encode()).hexdigest()
        folder = environments / digest[:32]
        with locked(environments / f".{digest[:32]}.lock") as held:
            cached = _complete(folder)
            if not cached:
                shutil.rmtree(folder, ignore_errors=True)  # somebody was killed over it
                try:
                    uv().create(folder, interpreter(), held)
                    if lock.text:
                        uv().sync(folder, lock.text, lock.backend, held)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                write_record(folder / _MARKER, {"python": python, "lock": lock.text})
    return Environment(
        python=folder / "bin" / "python",
        lock=lock.text,
        digest=f"sha256:{digest}",
        cached=cached,
    )


def _complete(folder: Path) -> bool:
    """Built to its end, and the interpreter that it links to is still there."""
    try:
        built = read_record(folder / _MARKER) is not None
    except json.JSONDecodeError:
        return False
    return built and (folder / "bin" / "python").exists()


def _own(python: str) -> Path | None:
    """The platform's own interpreter, if it is of that version."""
    own = ".".join(map(str, sys.version_info[:3]))
    return Path(sys.executable) if own == python or own.startswith(f"{python}.") else None


def _silent(line: str) -> None:
    """For those who do not listen."""
