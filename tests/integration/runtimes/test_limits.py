"""What a job may take: memory, time, cores."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tracklayer.errors import JobOutOfMemory, JobTimeout
from tracklayer.files import read_record
from tracklayer.runtimes import Job, ProcessRuntime

RUNTIME = ProcessRuntime()


def test_memory_is_limited_over_the_whole_tree(make: Callable[..., Job]) -> None:
    job = make(
        """
import subprocess, sys, time
grow = "x = bytearray(120 << 20); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(60)"
children = [subprocess.Popen([sys.executable, "-S", "-c", grow]) for _ in range(2)]
time.sleep(60)
""",
        memory=200 << 20,
    )
    before = time.monotonic()
    with pytest.raises(JobOutOfMemory, match=r"limit is 200 MiB(.|\n)*train.resources.memory"):
        RUNTIME.run(job)
    assert time.monotonic() - before < 10


def test_shared_memory_counts_once(make: Callable[..., Job]) -> None:
    job = make(
        """
import os, time
x = bytearray(100 << 20)
x[::4096] = b"1" * len(x[::4096])
children = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        time.sleep(0.7); os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
""",
        memory=250 << 20,
    )
    assert 100 << 20 < RUNTIME.run(job).peak_memory < 250 << 20


def test_the_time_limit_holds_for_those_who_do_not_listen(make: Callable[..., Job]) -> None:
    job = make(
        """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("up", flush=True)
while True: time.sleep(1)
""",
        timeout=0.5,
        grace=0.5,
    )
    lines: list[str] = []
    with pytest.raises(JobTimeout, match=r"0.5s(.|\n)*train.resources.timeout"):
        RUNTIME.run(job, lines.append)
    assert lines == ["up", "asked"]
    ending = read_record(job.folder / "exit.json")
    assert ending
    assert ending["exit_code"] == -signal.SIGKILL


def test_a_job_gets_as_many_cores_as_it_asked_for(make: Callable[..., Job]) -> None:
    lines: list[str] = []
    script = "import os; print(len(os.sched_getaffinity(0)), os.environ['SM_NUM_CPUS'])"
    RUNTIME.run(make(script, cpus=0.5), lines.append)
    assert lines == ["1 1"]
    there = len(os.sched_getaffinity(0))
    RUNTIME.run(make(script, cpus=there + 7), lines.append)
    assert str(there + 7) in lines[1]
    assert lines[2] == f"{there} {there}"
