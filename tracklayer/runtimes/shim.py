"""The guard of one job: starts the user's program, holds its limits, notes how it ended.

``python -m tracklayer.runtimes.shim <folder> <descriptor of the folder's lock>``

It outlives whoever started it, and takes its orders from two files: ``job.json``, which stood
before it did, and ``cancel``, which may appear. It leaves ``exit.json`` as its last act. Standard
library only, to start fast and to stay small beside the job.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tracklayer.files import read_record, write_record
from tracklayer.runtimes import linux

_TICK = 0.1  # seconds between two looks at the job
_FAST = 0.02  # the same, above half of its memory limit
_PATIENCE = 30  # seconds to wait for a killed process that the kernel does not let go
_STOPS = {signal.SIGTERM, signal.SIGINT}
_WAKES = {*_STOPS, signal.SIGCHLD}


def claim(kind: str, names: Sequence[str], count: int) -> tuple[list[str], list[socket.socket]]:
    """Takes ``count`` of the names, those first that no other guard on this machine has.

    A claim is an abstract socket (unix(7)): the kernel drops it with the process that holds it.
    """
    free: list[str] = []
    claims: list[socket.socket] = []
    for name in names:
        if len(free) == count:
            break
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0tracklayer-{kind}-{name}")
        except OSError:
            mark.close()
        else:
            free.append(name)
            claims.append(mark)
    shared = [name for name in names if name not in free]
    first = os.getpid() % len(shared) if shared else 0
    return free + (shared[first:] + shared[:first])[: count - len(free)], claims


class Guard:
    """One attempt of a job, from its start to ``exit.json``."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self._folder = folder
        self._job = job
        self._program = 0
        self._status: int | None = None
        self._peak = 0
        self._claims: list[socket.socket] = []

    def run(self) -> None:
        """Blocks until nothing of the job is left, and writes ``exit.json``."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_WAKES, signal.SIGHUP})
        linux.adopt_orphans()
        ending: dict[str, Any] = {"started": time.time()}
        try:
            self._program = self._start()
        except OSError as error:
            ending |= {"reason": "start", "error": str(error)}
        else:
            ending["reason"] = self._watch()
            ending["used"] = self._peak
            self._end(0 if ending["reason"] == "memory" else self._job["grace"])
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        status = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        ending |= {
            "exit_code": status,
            "ended": time.time(),
            "peak_memory": max(self._peak, children),
        }
        write_record(self._folder / "exit.json", ending)

    def _start(self) -> int:
        cores = sorted(os.sched_getaffinity(0))
        mine, claims = claim("core", [str(core) for core in cores], self._job["cores"])
        self._claims += claims
        gpus, claims = claim("gpu", self._job["visible_gpus"], self._job["gpus"])
        self._claims += claims
        guard = os.getpid()

        def before() -> None:
            linux.die_with_parent(signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)
            os.sched_setaffinity(0, {int(core) for core in mine})
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

        with (self._folder / "output.log").open("ab") as log:
            program = subprocess.Popen(
                self._job["argv"],
                cwd=self._job["cwd"],
                env={**self._job["env"], "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=before,  # there is one thread
            )
        program.returncode = 0  # whoever ends is waited for below, this one too
        return program.pid

    def _watch(self) -> str:
        """Why it is over: ``exited``, ``cancelled``, ``timeout`` or ``memory``."""
        deadline = time.monotonic() + self._job["timeout"]
        while not self._reap():
            used = self._memory()
            if used > self._job["memory"]:
                return "memory"
            if time.monotonic() > deadline:
                return "timeout"
            tick = _FAST if used > self._job["memory"] / 2 else _TICK
            woken = signal.sigtimedwait(_WAKES, tick)
            if (woken and woken.si_signo in _STOPS) or (self._folder / "cancel").exists():
                return "cancelled"
        return "exited"

    def _reap(self) -> bool:
        """Waits for all that have ended; true once the program itself has."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self._program:
                    self._status = status
                if pid == 0:
                    break
        return self._status is not None

    def _memory(self) -> int:
        """Bytes that the job's processes have now. What they share counts once, if it matters."""
        tree = linux.descendants(os.getpid())
        used = sum(map(linux.resident, tree))
        if used > self._job["memory"]:
            used = sum(map(linux.proportional, tree))
        self._peak = max(self._peak, used)
        return used

    def _end(self, grace: float) -> None:
        """Ends whatever is left, daemons included: they became children of this process."""
        asked: set[int] = set()
        deadline = time.monotonic() + grace
        while tree := linux.descendants(os.getpid()):
            late = time.monotonic() >= deadline
            for pid in tree:
                with suppress(ProcessLookupError):
                    if late:
                        os.kill(pid, signal.SIGKILL)
                    elif pid not in asked:
                        asked.add(pid)
                        os.kill(pid, signal.SIGTERM)
                        os.kill(pid, signal.SIGCONT)
            self._reap()
            if time.monotonic() >= deadline + _PATIENCE:
                break
            signal.sigtimedwait({signal.SIGCHLD}, _FAST)


def main(folder: Path, lock: int) -> None:
    """Leaves a guard behind that has been written down before it does anything."""
    job = read_record(folder / "job.json")
    if job is None:
        raise SystemExit(f"there is no job in {folder}")
    ready, go = os.pipe()
    guard = os.fork()
    if guard:
        write_record(folder / "guard.json", {"pid": guard, "identity": linux.identity(guard)})
        os.write(go, b"!")
        return
    os.close(go)
    noted = os.read(ready, 1)
    os.close(ready)
    os.close(lock)
    if noted:
        Guard(folder, job).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
