"""From what the guard noted to a result, or to an error that says what to do."""

from __future__ import annotations

import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tracklayer.errors import (
    JobCancelled,
    JobError,
    JobFailed,
    JobOutOfMemory,
    JobTimeout,
    StoreError,
)
from tracklayer.files import read_record
from tracklayer.runtimes.contract import Tree
from tracklayer.runtimes.job import Job, JobResult
from tracklayer.runtimes.output import LogTail

_LINES = 20
_TAIL = 16 * 1024
_FAILURE = 1024  # as much of output/failure as SageMaker shows
_FULL = 1024 * 1024


def outcome(job: Job, ending: dict[str, Any] | None, *, adopted: bool) -> JobResult:
    """The result of a job that has ended; ``ending`` is the content of ``exit.json``.

    :raises JobError: it did not end well; the subclass says how.
    :raises StoreError: its end could not be noted because the disk is full.
    """
    if ending is None:
        if shutil.disk_usage(job.folder).free < _FULL:
            raise StoreError(f"job {job.name}: no space is left on the disk of {job.folder}")
        raise JobFailed(
            f"job {job.name} was ended from outside: its guard was killed, or the machine was"
            f" restarted{_evidence(job)}",
            hint="run it again; what it had written is kept in its folder",
        )
    reason = ending["reason"]
    if reason == "start":
        raise JobError(f"job {job.name} could not be started: {ending['error']}")
    if reason == "cancelled":
        raise JobCancelled(f"job {job.name} was cancelled")
    if reason == "timeout":
        raise JobTimeout(
            f"job {job.name} passed its time limit of {_duration(job.timeout)}{_evidence(job)}",
            hint="raise train.resources.timeout, or make the job shorter",
        )
    if reason == "memory":
        raise JobOutOfMemory(
            f"job {job.name} used {_size(ending['used'])} of memory, its limit is"
            f" {_size(job.memory)}{_evidence(job)}",
            hint="raise train.resources.memory, or use less (smaller batches, fewer workers)",
        )
    code = ending["exit_code"]
    if code != 0:
        raise JobFailed(f"job {job.name} {_how(code)}{_evidence(job)}", hint=_hint(code))
    tree = Tree(job.folder)
    record = read_record(job.folder / "job.json") or {}
    return JobResult(
        exit_code=code,
        started=datetime.fromtimestamp(ending["started"], UTC),
        ended=datetime.fromtimestamp(ending["ended"], UTC),
        peak_memory=ending["peak_memory"],
        attempt=record.get("attempt", 1),
        adopted=adopted,
        model=tree.model,
        output=tree.output,
        log=job.folder / "output.log",
    )


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _hint(code: int) -> str | None:
    if code == -signal.SIGKILL:
        return "nobody here sent that: the machine itself may have run out of memory"
    return None


def _evidence(job: Job) -> str:
    """The last lines of output, and the reason that the program gave itself."""
    log = job.folder / "output.log"
    text = ""
    if log.exists():
        with LogTail(log, max(0, log.stat().st_size - _TAIL)) as tail:
            lines = list(tail.last())[-_LINES:]
        if lines:
            text += "\nits last lines:\n" + "\n".join(f"  | {line}" for line in lines)
    failure = Tree(job.folder).failure
    if failure.is_file():
        text += f"\nit says in output/failure:\n{_head(failure)}"
    return text


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_FAILURE).decode("utf-8", "replace").strip()


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.4g} {unit}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "m"), (rest, "s")]
    return "".join(f"{amount:g}{unit}" for amount, unit in parts if amount) or "0s"
