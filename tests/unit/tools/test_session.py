"""Programs in a session of their own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from tracklayer.tools.session import Session


def start(tmp_path: Path, *argv: str) -> Session:
    return Session.start(list(argv), cwd=tmp_path, env=dict(os.environ), output=tmp_path / "log")


def follow(session: Session, seconds: float = 10) -> list[str]:
    lines: list[str] = []
    assert session.follow(lines.append, deadline=time.monotonic() + seconds)
    return lines


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return text.strip()
        time.sleep(0.01)
    raise TimeoutError(path)


def test_output_and_exit_code(tmp_path: Path) -> None:
    session = start(tmp_path, "sh", "-c", "echo one; echo two >&2; printf 'no end'; exit 3")
    assert follow(session) == ["one", "two", "no end"]
    assert session.finish() == 3
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_lines_arrive_while_it_runs(tmp_path: Path) -> None:
    session = start(tmp_path, "sh", "-c", "echo now; sleep 0.4; echo later")
    arrived: list[tuple[str, float]] = []
    session.follow(lambda line: arrived.append((line, time.monotonic())), deadline=float("inf"))
    session.finish()
    assert [line for line, _ in arrived] == ["now", "later"]
    assert arrived[1][1] - arrived[0][1] > 0.3


def test_what_it_writes_is_private(tmp_path: Path) -> None:
    session = start(tmp_path, "sh", "-c", "echo x > made")
    follow(session)
    assert session.finish() == 0
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600


def test_one_interrupt_and_no_second(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "seen = []\n"
        "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "print('ready', flush=True)\n"
        "end = time.monotonic() + 0.5\n"
        "while time.monotonic() < end: time.sleep(0.01)\n"
        "print(len(seen))\n"
    )
    session = start(tmp_path, sys.executable, "-c", code)
    wait_for(tmp_path / "log")
    session.interrupt()
    session.interrupt()
    assert follow(session) == ["ready", "1"]
    session.finish()
    session.interrupt()


def test_the_rest_of_the_session_is_ended(tmp_path: Path) -> None:
    stubborn = "trap '' TERM INT; echo $$ > pid; while :; do sleep 0.1; done"
    session = start(tmp_path, "sh", "-c", f"sh -c '{stubborn.replace(chr(39), chr(34))}' & exit 0")
    pid = int(wait_for(tmp_path / "pid"))
    follow(session)
    assert psutil.pid_exists(pid)
    assert session.finish() == 0
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_deadline_and_a_stop_leave_it_running(tmp_path: Path) -> None:
    session = start(tmp_path, "sleep", "30")
    assert not session.follow(print, deadline=time.monotonic() + 0.1)
    assert not session.follow(print, deadline=float("inf"), stop=lambda: True)
    assert not session.ended()
    session.interrupt()
    assert follow(session) == []
    assert session.finish() == -2


def test_found_again_by_number_and_birth(tmp_path: Path) -> None:
    session = start(tmp_path, "sleep", "30")
    found = Session.find(session.pid, session.created, tmp_path / "log")
    assert found is not None
    assert Session.find(session.pid, session.created - 1, tmp_path / "log") is None
    found.interrupt()
    assert follow(found) == []
    assert found.finish() is None
    assert session.finish() == -2
    assert Session.find(session.pid, session.created, tmp_path / "log") is None


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start(tmp_path, "no-such-program")
