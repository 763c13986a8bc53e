"""What a job is, and what comes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

Value = int | float | str | bool
OnLine = Callable[[str], None]


def no_line(line: str) -> None:
    """For those who do not listen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run of the user's program.

    :param name: what people call it: project, run and step.
    :param folder: the job's own folder, absolute; the same folder is the same job.
    :param argv: the program; with ``python`` a script and its arguments.
    :param code: folder whose copy is the working directory.
    :param python: interpreter of the prepared environment.
    :param inputs: name of a source -> folder or file; read-only to the job.
    :param hyperparameters: name -> value, of the type that the spec gives.
    :param env: variables on top of what is passed on (see ``tracklayer.environment``).
    :param cpus: cores; a fraction takes a whole one.
    :param memory: limit of the whole process tree, in bytes.
    :param gpus: accelerators.
    :param timeout: time limit, in seconds.
    :param grace: seconds between asking the job to end and ending it.
    """

    name: str
    folder: Path
    argv: Sequence[str]
    code: Path | None = None
    python: Path | None = None
    inputs: Mapping[str, Path] = field(default_factory=dict)
    hyperparameters: Mapping[str, Value] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cpus: float = 1
    memory: int = 2 * 1024**3
    gpus: int = 0
    timeout: float = 3600
    grace: float = 10

    def digest(self) -> str:
        """SHA-256 of the definition and of the code's content, hexadecimal."""
        definition = json.dumps(asdict(self), sort_keys=True, default=str)
        digest = hashlib.sha256(definition.encode())
        if self.code:
            for path in sorted(self.code.rglob("*")):
                if path.is_file():
                    name = path.relative_to(self.code).as_posix()
                    with path.open("rb") as file:
                        content = hashlib.file_digest(file, "sha256").hexdigest()
                    digest.update(f"\n{name}\0{content}".encode(errors="surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """A job that succeeded.

    :param started: when the user's program started, UTC.
    :param ended: when it ended, UTC.
    :param peak_memory: of the whole process tree, in bytes.
    :param attempt: which try in this folder it was, from 1.
    :param adopted: it ran already, or had ended well already, when it was asked for.
    :param model: folder in which the program left its model.
    :param output: folder for whatever else it left.
    :param log: its standard output and error.
    """

    exit_code: int
    started: datetime
    ended: datetime
    peak_memory: int
    attempt: int
    adopted: bool
    model: Path
    output: Path
    log: Path


class Runtime(Protocol):
    """A way to run jobs on a host."""

    def run(self, job: Job, on_line: OnLine = no_line, *, offset: int = 0) -> JobResult:
        """Blocks until the job has ended; adopts it where it runs or has ended well already."""

    def cancel(self, job: Job) -> None:
        """Ends the job's whole process tree. Safe in a signal handler."""
