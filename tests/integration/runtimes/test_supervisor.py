from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tracklayer.errors import PlatformError
from tracklayer.runtimes import Program, ServiceStatus, Supervisor, linux
from tracklayer.runtimes.orphans import marked
from tracklayer.runtimes.supervisor import MARK

SLEEP = "import time; print('up', flush=True); time.sleep(600)"


class Place:
    """A supervisor's folders; the socket's path is short, as it must be."""

    def __init__(self, root: Path, sockets: Path) -> None:
        self.root = root
        self.socket = sockets / "s.sock"
        self.config = root / "config with space"
        self.supervisor = Supervisor(
            self.config,
            self.socket,
            root / "logs",
            secrets={"STORE_KEY": "secret-of-this-test", "AWS_ONE": "1", "AWS_TWO": "2"},
        )

    def program(self, name: str = "web", code: str = SLEEP, **more: Any) -> Program:
        values: dict[str, Any] = {
            "name": name,
            "argv": [sys.executable, "-S", "-c", code],
            "logfile": self.root / "logs" / f"{name}.log",
            "startsecs": 0,
            "stopwaitsecs": 2,
        }
        return Program(**(values | more))

    def status(self, name: str = "web") -> ServiceStatus:
        return next(s for s in self.supervisor.status() if s.name == name)

    def running(self, name: str = "web") -> int:
        until(lambda: self.status(name).state == "RUNNING")
        pid = self.status(name).pid
        assert pid
        return pid

    def daemon(self) -> int:
        return int((self.config / "supervisord.pid").read_text())


def until(done: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sockets = Path(tempfile.mkdtemp(prefix="tl-"))
    made = Place(tmp_path, sockets)
    made.supervisor.start()
    yield made
    made.supervisor.stop()
    shutil.rmtree(sockets)
    assert marked(MARK, str(made.socket)) == []


def test_a_service_runs_is_restarted_and_ends(place: Place) -> None:
    supervisor = place.supervisor
    supervisor.start()  # again: nothing
    supervisor.add(place.program())
    first = place.running()
    supervisor.add(place.program())
    assert place.running() == first, "the same definition changes nothing"
    until(lambda: supervisor.log("web") == "up\n")

    os.kill(first, signal.SIGKILL)
    until(lambda: place.status().pid not in (None, first))
    second = place.running()
    supervisor.restart("web")
    assert place.running() != second
    supervisor.add(place.program(env={"A": "1"}))
    third = place.running()
    until(lambda: psutil.Process(third).environ().get("A") == "1")  # another definition replaces it

    supervisor.remove("web")
    supervisor.remove("web")
    assert supervisor.status() == []
    assert linux.identity(third) is None
    assert list(place.config.glob("web*")) == []
    with pytest.raises(PlatformError, match="no service 'web'"):
        supervisor.restart("web")
    with pytest.raises(PlatformError, match="no service 'web'"):
        supervisor.log("web")


def test_any_text_reaches_the_program_and_secrets_stay_with_their_owner(place: Place) -> None:
    nasty = "100% of %(here)s \"quoted\" 'too', comma; #hash\nnew\tline \\ $HOME é ,A=B"
    code = (
        "import json,os,sys,time; print(json.dumps([sys.argv[1:], os.environ['X'], os.getcwd()]))"
    )
    argv = [sys.executable, "-S", "-c", code + "; sys.stdout.flush(); time.sleep(600)", nasty, ""]
    cwd = place.root / "a % folder; #1"
    cwd.mkdir()
    place.supervisor.add(place.program(argv=argv, env={"X": nasty}, cwd=cwd))
    until(lambda: place.supervisor.log("web").endswith("\n"))
    assert json.loads(place.supervisor.log("web")) == [[nasty, ""], nasty, str(cwd)]
    for path in place.config.glob("web*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "quoted" not in (place.config / "web.conf").read_text()
    assert nasty not in " ".join(psutil.Process(place.daemon()).cmdline())


def test_the_platforms_secrets_do_not_reach_a_service(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.supervisor.stop()
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "planted")
    place.supervisor.start()
    place.supervisor.add(place.program())
    assert "planted" not in str(psutil.Process(place.running()).environ())


def test_a_killed_supervisord_leaves_no_second_copy(place: Place) -> None:
    place.supervisor.add(place.program())
    place.supervisor.add(place.program("api"))
    orphans = [place.running("web"), place.running("api")]
    os.kill(place.daemon(), signal.SIGKILL)
    until(lambda: not place.supervisor.alive())
    assert all(linux.identity(pid) for pid in orphans)
    with pytest.raises(PlatformError, match="does not run"):
        place.supervisor.status()

    place.supervisor.start()
    assert not any(linux.identity(pid) for pid in orphans)
    now = {place.daemon(), place.running("web"), place.running("api")}
    assert {p.pid for p in marked(MARK, str(place.socket))} == now


def test_two_starts_at_once_make_one_supervisord(place: Place) -> None:
    place.supervisor.stop()
    threads = [threading.Thread(target=place.supervisor.start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(place.config / "supervisord.ini") in process.cmdline():
                found.append(process.pid)
    assert found == [place.daemon()]


def test_services_stop_in_reverse_order_with_all_their_children(place: Place) -> None:
    code = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
def end(*_):
    open({!r}, "a").write({!r})
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
    order = place.root / "order"
    for name, priority in (("a", 1), ("b", 2), ("c", 3)):
        program = place.program(name, code.format(str(order), name), priority=priority)
        place.supervisor.add(program)
    until(lambda: all(place.supervisor.log(name) == "up\n" for name in "abc"))
    assert len(marked(MARK, str(place.socket))) == 1 + 3 * 2
    place.supervisor.stop()
    assert order.read_text() == "cba"
    assert marked(MARK, str(place.socket)) == []
    place.supervisor.start()  # they are still configured
    assert {place.status(name).state for name in "abc"} <= {"STARTING", "RUNNING"}


def test_a_crashing_service_says_so(place: Place) -> None:
    place.supervisor.add(place.program(argv=["no-such-program-here"], startsecs=1))
    until(lambda: place.status().state == "BACKOFF")
    assert place.status().detail
    assert "no-such-program-here" in place.supervisor.log("web")


def test_a_service_cannot_stop_its_own_platform(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, str(place.socket))
    with pytest.raises(PlatformError, match="cannot stop the platform"):
        place.supervisor.stop()
    monkeypatch.undo()
    assert place.supervisor.alive()


def test_what_supervisord_cannot_say_is_refused(place: Place) -> None:
    with pytest.raises(PlatformError, match="cannot work with the path"):
        place.supervisor.add(place.program(logfile=place.root / "a ;b"))
    with pytest.raises(PlatformError, match="name of a service"):
        place.program("no:colon")
    with pytest.raises(PlatformError, match="too long"):
        Supervisor(place.config / "x", place.root / ("s" * 100), place.root / "logs")


def test_what_supervisord_refuses_spoils_nothing(place: Place) -> None:
    place.supervisor.add(place.program())
    pid = place.running()
    until(lambda: place.supervisor.log("web") == "up\n")  # before it is stopped
    for name in ("web", "api"):
        with pytest.raises(PlatformError, match="not a valid signal"):
            place.supervisor.add(place.program(name, stopsignal="NOPE"))
    assert place.running() == pid
    place.supervisor.add(place.program("third"))
    place.running("third")
    assert sorted(p.stem for p in place.config.glob("*.conf")) == ["third", "web"]
    place.supervisor.stop()
    with pytest.raises(PlatformError, match="does not run"):
        place.supervisor.add(place.program("api"))
    place.supervisor.start()
    until(lambda: place.supervisor.log("web") == "up\nup\n")
    assert len(list(place.config.glob("*@*.json"))) == 2
    assert {s.name for s in place.supervisor.status()} == {"third", "web"}


def test_a_silent_listener_is_an_error_not_a_hang(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.supervisor.start()
    monkeypatch.setattr("tracklayer.runtimes.rpc._ANSWER", 0.2)
    os.kill(place.daemon(), signal.SIGSTOP)
    try:
        with pytest.raises(PlatformError, match="does not answer"):
            place.supervisor.alive()
    finally:
        os.kill(place.daemon(), signal.SIGCONT)


TELL = """
import json, os, sys, time
names = ("STORE_KEY", "AWS_ONE", "AWS_TWO", "TRACKLAYER_SECRETS")
with open(sys.argv[1], "w") as file:
    json.dump([name for name in names if name in os.environ], file)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("named", "got"),
    [
        ([], []),
        (["STORE_KEY"], ["STORE_KEY"]),
        (["AWS_*"], ["AWS_ONE", "AWS_TWO"]),
        (["*"], ["STORE_KEY", "AWS_ONE", "AWS_TWO"]),
    ],
)
def test_a_service_gets_the_secrets_that_it_names_and_no_file_has_one(
    place: Place, named: list[str], got: list[str]
) -> None:
    told = place.root / "told"
    argv = [sys.executable, "-S", "-c", TELL, str(told)]
    place.supervisor.add(place.program(argv=argv, secrets=named))
    place.running()
    until(told.exists)
    until(lambda: bool(told.read_text()))
    assert json.loads(told.read_text()) == got
    for path in place.config.rglob("*"):
        if path.is_file():
            assert b"secret-of-this-test" not in path.read_bytes()
