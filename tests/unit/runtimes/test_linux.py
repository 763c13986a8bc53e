from __future__ import annotations

import os
import subprocess
import sys
import time

from tracklayer.runtimes import linux

GRANDCHILD = """
import subprocess, sys, threading, time
def start():
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    print("up", flush=True)
    time.sleep(60)
threading.Thread(target=start).start()
"""


def test_an_identity_is_of_one_process() -> None:
    mine = linux.identity(os.getpid())
    assert mine is not None
    assert mine == linux.identity(os.getpid())
    assert mine != linux.identity(os.getppid())


def test_one_that_has_ended_has_no_identity_even_before_it_is_waited_for() -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    while linux.identity(ended.pid):
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{ended.pid}")  # noqa: PTH110
    ended.wait()
    assert linux.identity(ended.pid) is None


def test_descendants_are_found_whichever_thread_made_them() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", GRANDCHILD], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        found = linux.descendants(os.getpid())
        below = linux.descendants(child.pid)
        assert len(below) == 1
        assert {child.pid, *below} <= set(found)
        for pid in (child.pid, *below):
            os.kill(pid, 9)


def test_memory_is_that_of_the_process() -> None:
    before = linux.resident(os.getpid())
    block = bytearray(64 << 20)
    block[:: os.sysconf("SC_PAGESIZE")] = b"1" * len(block[:: os.sysconf("SC_PAGESIZE")])
    grown = linux.resident(os.getpid()) - before
    assert 60 << 20 < grown < 80 << 20
    assert 60 << 20 < linux.proportional(os.getpid()) <= linux.resident(os.getpid())
    ended = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    ended.wait()
    assert linux.resident(ended.pid) == linux.proportional(ended.pid) == 0
