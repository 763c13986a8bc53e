"""Programs under measurement: their environment, their ports, their end, and what they use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.measure import NotMeasuredError

_OURS_TO_SET = ("AIRFLOW", "DAGSTER", "METAFLOW", "MLFLOW", "TRACKLAYER", "VIRTUAL_ENV", "PYTHON")
_GRACE = 20.0  # seconds to end by itself


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change how a program behaves, and more."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS_TO_SET)}
    return kept | {"DO_NOT_TRACK": "1", "SCARF_ANALYTICS": "false"} | more


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@contextmanager
def started(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the block ends, whatever way, and then its whole family ends."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us; we stop what we started
        )
    try:
        yield process
    finally:
        _end(process)


def timed(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, within: float = 600
) -> float:
    """Seconds from the start of a program to its end.

    :raises NotMeasuredError: it failed or took too long; with the last that it said.
    """
    begin = time.perf_counter()
    with started(argv, env=env, cwd=cwd, log=log) as process:
        try:
            code = process.wait(within)
        except subprocess.TimeoutExpired:
            raise NotMeasuredError(f"{Path(argv[0]).name} took over {within:.0f} s") from None
        seconds = time.perf_counter() - begin
    if code:
        raise NotMeasuredError(f"{Path(argv[0]).name} exited with {code}: {last_lines(log)}")
    return seconds


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log on one line."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " | ".join(line.strip() for line in lines[-count:])


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass(frozen=True, slots=True)
class Usage:
    """What a family of processes used during a window.

    :param memory: resident, summed over all processes, MiB; what they share counts for each.
    :param processes: how many there were at the end.
    :param cpu: percent of one core.
    """

    memory: float
    processes: int
    cpu: float


def usage(pid: int, seconds: float) -> Usage:
    """Watch a family for so long."""
    before, begin = _cpu_seconds(family(pid)), time.monotonic()
    time.sleep(seconds)
    members = family(pid)
    passed = time.monotonic() - begin
    used = _cpu_seconds(members) - before
    memory = sum(_resident(member) for member in members)
    return Usage(memory / 2**20, len(members), 100 * used / passed)


def _cpu_seconds(members: Sequence[psutil.Process]) -> float:
    """What they used so far, and what their children that have ended used."""
    total = 0.0
    for member in members:
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _resident(member: psutil.Process) -> int:
    try:
        return int(member.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it as a terminal would, then whatever of its family is left."""
    members = family(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            members += family(process.pid)
    # psutil knows a process by the time of its birth too: none that has its number now is hit.
    left = [member for member in set(members) if member.is_running()]
    for member in left:
        _signal(member, signal.SIGTERM)
    _, left = psutil.wait_procs(left, timeout=_GRACE / 4)
    for member in left:
        _signal(member, signal.SIGKILL)
    psutil.wait_procs(left, timeout=_GRACE / 4)
    process.wait(_GRACE)


def _signal(member: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        member.send_signal(number)
