"""Jobs as processes of this machine.

This is for one person's machine: a job has limits, but no isolation. It runs as the platform's
user, sees the machine's files and network, and could end the platform's processes.
"""

from __future__ import annotations

import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tracklayer
from tracklayer.environment import passed_on
from tracklayer.errors import JobCancelled, JobError, PlatformError
from tracklayer.files import locked, read_record, write_record, writing
from tracklayer.runtimes import linux
from tracklayer.runtimes.contract import Tree, arguments, variables
from tracklayer.runtimes.gpus import visible_gpus
from tracklayer.runtimes.job import Job, JobResult, OnLine, no_line
from tracklayer.runtimes.orphans import end_marked
from tracklayer.runtimes.outcome import outcome
from tracklayer.runtimes.output import LogTail

_MARK = "TRACKLAYER_JOB"
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
_POLL = 0.1  # seconds between two looks at the output
_LAST_WORD = 60  # seconds for a guard to end a job, on top of the job's grace


class ProcessRuntime:
    """Runs jobs that outlive their caller, each under a guard process of its own.

    A job's folder holds, beside the tree of the contract: ``job.json`` (the definition, written
    before anything runs), ``guard.json`` (who guards it), ``output.log``, ``cancel`` (somebody
    wants it to end), ``exit.json`` (how it ended) and ``attempt-<n>/`` (earlier tries).
    """

    def __init__(self) -> None:
        self._cancelled: set[Path] = set()

    def run(self, job: Job, on_line: OnLine = no_line, *, offset: int = 0) -> JobResult:
        """Runs the job to its end, or adopts it.

        A job of the same definition that runs in this folder is followed, one that ended well
        gives its result again; in all other cases a new attempt starts, and the folder of the
        one before is kept as ``attempt-<n>``. Checkpoints stay for the next attempt.

        :param on_line: gets each line of output. What it raises leaves the job running.
        :param offset: byte of ``output.log`` to begin at, for an adopted job.
        :raises JobFailed: the program ended with another code than 0.
        :raises JobTimeout: it passed its time limit.
        :raises JobOutOfMemory: it passed its memory limit.
        :raises JobCancelled: somebody cancelled it, or another attempt took its place.
        :raises JobError: it could not be started as asked for.
        :raises StoreError: the disk is full.
        :raises PlatformError: the folder cannot be written.
        """
        self._cancelled.discard(job.folder)
        with writing(job.folder):
            attempt, adopted = self._begin(job, on_line)
        _follow(job.folder, on_line, offset if adopted else 0)
        with locked(job.folder / ".lock"):  # nobody puts this attempt aside while it is looked at
            if (read_record(job.folder / "job.json") or {}).get("attempt") != attempt:
                raise JobCancelled(f"job {job.name} was ended: another attempt took its place")
            ending = read_record(job.folder / "exit.json")
            if ending is None:  # the guard was killed, and the kernel has ended the program with it
                end_marked(_MARK, str(job.folder), grace=job.grace)
            return outcome(job, ending, adopted=adopted)

    def cancel(self, job: Job) -> None:
        """Has the job ended: notes it, then signals the guard, which does the rest by itself.

        Returns at once, takes no lock and waits for nothing: safe in a signal handler.
        """
        self._cancelled.add(job.folder)
        _cancel(job.folder)

    @staticmethod
    def running(root: Path) -> list[Path]:
        """The folders, anywhere below ``root``, of jobs that run."""
        found = []
        for record in sorted(root.rglob("guard.json")):
            with _guard(record.parent) as guard:
                if guard is not None and not record.parent.name.startswith("attempt-"):
                    found.append(record.parent)
        return found

    @staticmethod
    def end(folder: Path) -> None:
        """Ends the job in this folder, and returns when nothing of it runs any more.

        :raises JobError: it cannot be ended.
        """
        _end(folder, folder.name, 0)

    def _begin(self, job: Job, on_line: OnLine) -> tuple[int, bool]:
        """The number of the attempt, and whether it was there to be adopted."""
        job.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(job.folder / ".lock") as lock:
            digest = job.digest()
            previous = read_record(job.folder / "job.json")
            if previous:
                if previous["digest"] == digest and _adoptable(job.folder):
                    return previous["attempt"], True
                _end(job.folder, job.name, job.grace)
                _archive(job.folder, previous, again=previous["digest"] == digest)
            (job.folder / "cancel").unlink(missing_ok=True)  # it meant an attempt before this one
            attempt = previous["attempt"] + 1 if previous else 1
            definition = _definition(job, on_line) | {"digest": digest, "attempt": attempt}
            _lay_out(job)
            if job.folder in self._cancelled:
                raise JobCancelled(f"job {job.name} was cancelled before it started")
            write_record(job.folder / "job.json", definition)
            _start_guard(job.folder, lock)
        return attempt, False


def _definition(job: Job, on_line: OnLine) -> dict[str, Any]:
    """What the guard needs to know."""
    gpus = visible_gpus()
    if job.gpus > len(gpus):
        raise JobError(
            f"job {job.name} asks for {job.gpus} gpus, this machine has {len(gpus)}",
            hint="lower train.resources.gpus, or choose a target that has them",
        )
    there = len(os.sched_getaffinity(0))
    cores = max(1, math.ceil(job.cpus))
    if cores > there:
        on_line(f"tracklayer: {cores} cpus were asked for, this machine gives {there}")
        cores = there
    if job.python and not job.python.exists():
        raise JobError(f"job {job.name}: its Python is not there: {job.python}")
    argv = [*([str(job.python)] if job.python else []), *job.argv]
    environment = passed_on()
    if job.python:
        environment["PATH"] = f"{job.python.parent}:{environment.get('PATH', os.defpath)}"
    environment |= {"PYTHONUNBUFFERED": "1", **dict.fromkeys(_THREADS, str(cores))}
    environment |= variables(job, argv=job.argv, cpus=cores) | dict(job.env)
    return {
        "name": job.name,
        "argv": argv + arguments(job.hyperparameters),
        "cwd": str(Tree(job.folder).code),
        "env": environment | {_MARK: str(job.folder)},
        "cores": cores,
        "gpus": job.gpus,
        "visible_gpus": gpus,
        "memory": job.memory,
        "timeout": job.timeout,
        "grace": job.grace,
    }


def _lay_out(job: Job) -> None:
    tree = Tree(job.folder)
    for half_made in (tree.code, tree.input):
        shutil.rmtree(half_made, ignore_errors=True)
    tree.make(job)
    if job.code:
        shutil.copytree(job.code, tree.code, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        _make_writable(tree.code)
    else:
        tree.code.mkdir()


def _make_writable(folder: Path) -> None:
    # A checkout may be read-only; its copy is the job's own.
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o600))


def _start_guard(folder: Path, lock: int) -> None:
    # The guard holds the lock until it is written down: nobody can start a second one meanwhile.
    with (folder / "guard.log").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-S", "-P", "-m", "tracklayer.runtimes.shim", str(folder), str(lock)],
            env=passed_on() | {"PYTHONPATH": str(Path(tracklayer.__file__).parent.parent)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
            cwd=folder,
            check=False,
        )
    if done.returncode != 0:
        text = (folder / "guard.log").read_text(errors="replace").strip()
        raise PlatformError(f"the guard of the job in {folder} did not start: {text[-500:]}")


@contextmanager
def _guard(folder: Path) -> Iterator[int | None]:
    """A descriptor (pidfd_open(2)) of the running guard, None if it does not run."""
    record = read_record(folder / "guard.json")
    descriptor = None
    if record:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(record["pid"])
    try:
        # Looked at after it was opened: from here on the number cannot pass to another process.
        alive = record and linux.identity(record["pid"]) == record["identity"]
        yield descriptor if alive else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _follow(folder: Path, on_line: OnLine, offset: int) -> None:
    """Blocks until the guard has ended."""
    with LogTail(folder / "output.log", offset) as tail, _guard(folder) as guard:
        ended = False
        while guard is not None and not ended:
            ended = bool(select.select([guard], [], [], _POLL)[0])
            for line in tail.lines():
                on_line(line)
        for line in tail.last():
            on_line(line)


def _adoptable(folder: Path) -> bool:
    """It runs and nobody wants its end, or it has ended well."""
    with _guard(folder) as guard:
        if guard is not None:
            return not (folder / "cancel").exists()
    ending = read_record(folder / "exit.json")
    return ending is not None and ending["reason"] == "exited" and ending["exit_code"] == 0


def _cancel(folder: Path) -> None:
    with suppress(OSError):
        os.close(os.open(folder / "cancel", os.O_WRONLY | os.O_CREAT, 0o600))
    with _guard(folder) as guard:
        if guard is not None:
            signal.pidfd_send_signal(guard, signal.SIGTERM)


def _end(folder: Path, name: str, grace: float) -> None:
    """Leaves nothing running of the latest attempt."""
    with _guard(folder) as guard:
        if guard is not None:
            _cancel(folder)
            grace = (read_record(folder / "job.json") or {}).get("grace", grace)
            deadline = time.monotonic() + grace + _LAST_WORD
            if not select.select([guard], [], [], deadline - time.monotonic())[0]:
                raise JobError(
                    f"job {name}: its attempt before this one cannot be ended",
                    hint=f"see {folder / 'guard.log'} and the processes of this machine",
                )
    if not (folder / "exit.json").exists():
        end_marked(_MARK, str(folder), grace=grace)


def _archive(folder: Path, previous: dict[str, Any], *, again: bool) -> None:
    """Moves an attempt aside. ``job.json`` goes last, so that a crash is made good next time."""
    kept = folder / f"attempt-{previous['attempt']}"
    kept.mkdir(exist_ok=True)
    stays = {".lock", "job.json"} | ({"checkpoints"} if again else set())
    for path in folder.iterdir():
        if path.name not in stays and not path.name.startswith("attempt-"):
            path.rename(kept / path.name)
    (folder / "job.json").rename(kept / "job.json")
