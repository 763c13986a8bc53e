"""Driver of the program uv: what it is told, what it says, how it fails. Nothing else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from tracklayer.environment import passed_on
from tracklayer.errors import PackagesError, StoreError
from tracklayer.packages.index import no_index, uv_variables

OnLine = Callable[[str], None]
_SECRET = re.compile(r"(://)[^/@\s]+@")
_EXPLAINS = re.compile(r"^\s*(?:error|cause|\u00d7|╰─▶|├─▶|hint)", re.IGNORECASE)
_LINES = 25


class Uv:
    """uv with pip's configuration; its output goes to ``on_line``, without secrets."""

    def __init__(self, folder: Path, on_line: OnLine) -> None:
        from uv import find_uv_bin

        self._program = find_uv_bin()
        self._folder = folder
        self._on_line = on_line
        # Building a package runs its author's code: the platform's secrets are not for it.
        self._environment = passed_on() | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"} | uv_variables()
        self._no_index = ["--no-index"] if no_index() else []

    def compile(self, requirements: Sequence[str], python: Path, backend: str | None) -> str:
        """The lock of requirements: ``name==version`` lines, no addresses of indexes.

        :raises PackagesError: they cannot be resolved; in uv's own words.
        """
        return self._run(
            "pip",
            "compile",
            *("--no-header", "--no-annotate", "--quiet", "--python", str(python)),
            *self._no_index,
            *_torch(backend),
            "-",
            given="\n".join(requirements) + "\n",
            failure="the requirements cannot be resolved",
            hint="change packages.requirements in tracklayer.yaml",
        )

    def find_python(self, version: str) -> Path:
        """An interpreter of this version.

        :raises PackagesError: this machine has none.
        """
        found = self._run(
            *("python", "find", "--no-project", "--system", "--no-python-downloads", version),
            failure=f"there is no Python {version} on this machine",
            hint=f"install it: `{self._program} python install {version}`,"
            " or change packages.python in tracklayer.yaml",
        )
        return Path(found.strip())

    def create(self, folder: Path, python: Path, keep_open: int) -> None:
        """An empty virtual environment.

        :param keep_open: descriptor of a lock that uv holds on if we are killed.
        """
        self._run(
            *("venv", "--no-project", "--python", str(python), str(folder)),
            failure="the virtual environment cannot be made",
            keep_open=keep_open,
        )

    def sync(self, folder: Path, lock: str, backend: str | None, keep_open: int) -> None:
        """Installs exactly the lock, with bytecode: else every start compiles everything anew.

        :param keep_open: descriptor of a lock that uv holds on if we are killed.
        :raises PackagesError: something cannot be fetched or built; in uv's own words.
        """
        self._run(
            "pip",
            "sync",
            *("--compile-bytecode", "--python", str(folder / "bin" / "python")),
            *self._no_index,
            *_torch(backend),
            "-",
            given=lock,
            failure="the packages cannot be installed",
            hint="if it is the network or the index, try again: what was fetched is kept",
            keep_open=keep_open,
        )

    def _run(
        self,
        *arguments: str,
        failure: str,
        hint: str | None = None,
        given: str = "",
        keep_open: int | None = None,
    ) -> str:
        said: list[str] = []
        with TemporaryFile("w+") as source, TemporaryFile("w+") as output:
            source.write(given)
            source.seek(0)
            process = subprocess.Popen(
                [self._program, *arguments],
                stdin=source,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=self._environment,
                cwd=self._folder,
                pass_fds=() if keep_open is None else (keep_open,),
            )
            try:
                for line in process.stderr or ():
                    said.append(_SECRET.sub(r"\1***@", line.rstrip()))
                    self._on_line(said[-1])
            except BaseException:
                # Interrupted: uv must not go on in a folder that is about to be removed.
                process.kill()
                raise
            finally:
                code = process.wait()
            output.seek(0)
            if code == 0:
                return output.read()
        text = "\n".join(said)
        if "No space left on device" in text or "os error 28" in text:
            raise StoreError(
                f"no space is left on the disk while packages were prepared in {self._folder}",
                hint="free some space, or set TRACKLAYER_HOME to a larger disk",
            )
        raise PackagesError(f"{failure}:\n{_explanation(said)}", hint=hint)


def _torch(backend: str | None) -> list[str]:
    return ["--torch-backend", backend] if backend else []


def _explanation(said: Sequence[str]) -> str:
    """uv's own words, from where it begins to explain."""
    first = next((n for n, line in enumerate(said) if _EXPLAINS.match(line)), 0)
    lines = [line for line in said[first:] if line.strip()]
    return "\n".join(f"  {line}" for line in lines[:_LINES])
