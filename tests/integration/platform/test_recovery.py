"""What the platform comes back from, and how it ends: one platform, the tests in this order."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from tracklayer.runtimes import ProcessRuntime

if TYPE_CHECKING:
    from tests.integration.platform.conftest import Platform


@pytest.fixture(scope="module", autouse=True)
def _started(platform: Platform) -> None:
    platform.up()


def test_what_is_killed_is_started_again(platform: Platform) -> None:
    before = platform.pids()
    assert set(before) == platform.programs
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def all_new() -> bool:
        now = platform.pids()
        return set(now) == platform.programs and not set(now.values()) & set(before.values())

    platform.until(all_new, 30, "the restart")
    platform.until(platform.healthy, 60, "health")
    # Not even the workers of the scheduler that was killed, which would wait for ever.
    platform.until(platform.one_of_each, 10, "the end of all others")


def test_a_killed_supervisor_leaves_no_second_copy(platform: Platform) -> None:
    before = platform.pids()
    os.kill(int((platform.home / "supervisor/supervisord.pid").read_text()), signal.SIGKILL)
    platform.until(lambda: not platform.supervisor.alive(), 10)
    platform.up()
    assert platform.healthy()
    assert platform.one_of_each()
    assert not set(before.values()) & set(platform.pids().values())


def test_down_leaves_no_process(platform: Platform) -> None:
    job = platform.job("long", "import time; print('runs', flush=True); time.sleep(600)")
    runs = threading.Event()

    def run() -> None:
        with suppress(Exception):  # it is ended from outside, which is what is asked for
            ProcessRuntime().run(job, on_line=lambda _: runs.set())

    thread = threading.Thread(target=run)
    thread.start()
    assert runs.wait(30)
    processes = platform.processes()
    jobs = [process for process in psutil.process_iter() if _of(process, str(job.folder))]
    assert jobs
    for _ in range(2):  # the second has nothing to do
        code_, output = platform.command("down")
        assert code_ == 0, output
    thread.join(30)
    assert not thread.is_alive()
    _, alive = psutil.wait_procs([*processes, *jobs], timeout=5)
    assert alive == []
    assert platform.processes() == []
    for port in platform.ports.values():
        with socket.create_server(("127.0.0.1", port)):
            pass
    assert not platform.settings.sockets.exists()


def _of(process: psutil.Process, text: str) -> bool:
    with suppress(psutil.Error):
        return text in " ".join([*process.cmdline(), *process.environ().values()])
    return False
