"""Finding processes by a mark in their environment, and ending them.

A mark survives what a process number does not: the death of the parent, a daemon's double fork.
"""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

_ROUNDS = 5


def marked(name: str, value: str) -> list[psutil.Process]:
    """This user's processes that were started with the variable ``name`` set to ``value``."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real == os.getuid() and process.environ().get(name) == value:
                found.append(process)
    return found


def end_marked(name: str, value: str, *, grace: float) -> int:
    """Asks them to end, ends them after ``grace`` seconds; how many there were."""
    count = 0
    for _ in range(_ROUNDS):  # one that was just forked is found in the next round
        processes = marked(name, value)
        if not processes:
            break
        count += len(processes)
        for process in processes:
            with suppress(psutil.Error):
                process.terminate()
                process.resume()
        for process in psutil.wait_procs(processes, timeout=grace)[1]:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=grace)
    return count
