"""What Linux tells and lets us set about processes. Standard library only: every job's guard
imports it, and it is read ten times a second (psutil looks at every process of the machine to find
the children of one).

Sources: proc(5), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGESIZE")


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def die_with_parent(signal_number: int) -> None:
    """This process gets the signal when the process that made it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process, not of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity(pid: int) -> str | None:
    """A text that no other process has ever: boot, pid and start in clock ticks.

    Unlike a time of creation it does not move when the clock is set. None: no such process, or
    one that has ended and only waits for its parent.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the name, in brackets, and may hold anything.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else f"{_boot()}/{pid}/{fields[19]}"


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass  # it ended meanwhile
    return found


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on; ended ones that nobody has waited for included."""
    found = _children(pid)
    for child in found:
        found += _children(child)
    return found


def resident(pid: int) -> int:
    """Resident memory in bytes, shared pages in full; 0 for a process that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """Resident memory in bytes, a page shared by n processes counted as 1/n. Slower."""
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open() as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return resident(pid)
