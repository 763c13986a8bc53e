"""Services that outlive the task and the terminal: supervisord, driven over its unix socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tracklayer.environment import passed_on
from tracklayer.errors import PlatformError
from tracklayer.files import locked, write_text, writing
from tracklayer.runtimes import launch, linux, rpc
from tracklayer.runtimes.orphans import end_marked
from tracklayer.runtimes.program import Program, ServiceStatus, said

MARK = "TRACKLAYER_SUPERVISOR"  # in the environment of all that it starts: the socket's path
_PID = "supervisord.pid"
_START = 20  # seconds for supervisord to come up
_STOP = 10  # seconds to stop a program, on top of its own stopwaitsecs
_LONGEST_SOCKET = 90  # bytes; unix(7) allows 107, supervisord appends its process number
_GOING = {"STARTING", "RUNNING", "BACKOFF"}
_ENDED = {"STOPPED", "EXITED", "FATAL", "UNKNOWN"}


class Supervisor:
    """One supervisord with its programs.

    :param config_folder: owner-only; a ``.conf`` and a ``.json`` file a program. They stay over
        :meth:`stop`: the next :meth:`start` starts them again.
    :param socket: where it listens.
    :param logs: folder of its own log.
    :param secrets: variables that a program gets if it names them. They are in no file.
    :raises PlatformError: the socket's path is longer than a socket's may be.
    """

    def __init__(
        self,
        config_folder: Path,
        socket: Path,
        logs: Path,
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._secrets = dict(secrets or {})
        self._folder = config_folder.absolute()
        self._socket = socket.absolute()
        self._logs = logs.absolute()
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET:
            raise PlatformError(
                f"the path of a unix socket is too long: {self._socket}",
                hint="set XDG_RUNTIME_DIR or TMPDIR to a shorter folder",
            )

    def start(self) -> None:
        """Starts supervisord, detached, with every program that is configured; idempotent.

        Programs that a killed supervisord left behind are ended first.

        :raises PlatformError: it does not come up, or this process is one of its programs.
        """
        with self._changing():
            if self.alive():
                return
            self._refuse_inside("start")
            self._shut_down()
            end_marked(MARK, str(self._socket), grace=self._longest_stop())
            write_text(
                self._folder / "supervisord.ini",
                _configuration(self._folder, self._socket, self._logs),
            )
            self._spawn()
            self._wait(self.alive, _START, "supervisord did not come up")

    def stop(self) -> None:
        """Ends all programs, the highest priority first, then supervisord; idempotent.

        :raises PlatformError: something does not end, or this process is one of its programs.
        """
        with self._changing():
            self._refuse_inside("stop")
            self._shut_down()
            end_marked(MARK, str(self._socket), grace=self._longest_stop())

    def alive(self) -> bool:
        """It answers, and is not on its way out.

        :raises PlatformError: something holds the socket and does not answer.
        """
        try:
            state: dict[str, Any] = rpc.ask(self._socket, "getState")
        except (*rpc.ABSENT, xmlrpc.client.Fault):  # the fault says that it is shutting down
            return False
        return bool(state["statename"] == "RUNNING")

    def add(self, program: Program) -> None:
        """Runs the program from now on. The same one again changes nothing, another replaces it.

        :raises PlatformError: supervisord does not run, or refuses it.
        """
        with self._changing():
            name = program.name
            definition = self._folder / program.definition_name()
            configuration = self._folder / f"{name}.conf"
            before = configuration.read_text() if configuration.exists() else None
            program.logfile.parent.mkdir(parents=True, exist_ok=True)
            write_text(definition, program.definition())
            write_text(configuration, program.configuration(self._folder))
            try:
                _, changed, _ = rpc.call(self._socket, "reloadConfig")[0]
            except PlatformError:  # one bad file would spoil every later reading
                if before is None:
                    configuration.unlink()
                else:
                    write_text(configuration, before)
                if definition.name not in (before or ""):
                    definition.unlink()
                raise
            states = {status.name: status.state for status in self.status()}
            if name in changed:
                self._drop(name)
                del states[name]
            if name not in states:
                rpc.call(self._socket, "addProcessGroup", name)
            elif states[name] in _ENDED:
                rpc.call(self._socket, "startProcess", name, False)
            for old in self._definitions(name):
                if old != definition:
                    old.unlink()

    def remove(self, name: str) -> None:
        """Stops the program and forgets it; idempotent.

        :raises PlatformError: supervisord does not run, or the program does not end.
        """
        with self._changing():
            if name in {status.name for status in self.status()}:
                self._drop(name)
            for file in (self._folder / f"{name}.conf", *self._definitions(name)):
                file.unlink(missing_ok=True)

    def restart(self, name: str) -> None:
        """Stops the program and starts it again.

        :raises PlatformError: supervisord does not run, or knows no such program.
        """
        with self._changing():
            self._stop(name)
            rpc.call(self._socket, "startProcess", name, False)

    def status(self) -> list[ServiceStatus]:
        """All programs, by name.

        :raises PlatformError: supervisord does not run.
        """
        return [
            ServiceStatus(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"] or None,
                uptime=float(info["now"] - info["start"]) if info["pid"] else 0.0,
                exit_status=info["exitstatus"] if info["stop"] else None,
                detail="" if info["statename"] == "RUNNING" else info["spawnerr"],
            )
            for info in sorted(
                rpc.call(self._socket, "getAllProcessInfo"), key=lambda info: str(info["name"])
            )
        ]

    def log(self, name: str, size: int = 16 * 1024) -> str:
        """The last ``size`` bytes of a program's output; works without supervisord too.

        :raises PlatformError: there is no such program.
        """
        for definition in self._definitions(name):
            path = Path(json.loads(definition.read_text())["logfile"])
            if not path.exists():
                return ""
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - size))
                return file.read().decode("utf-8", "replace")
        raise PlatformError(f"there is no service {name!r}", hint=self._known())

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, by whatever process."""
        with writing(self._folder):
            for folder in (self._folder, self._socket.parent, self._logs):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(self._folder / ".lock"):
                yield

    def _definitions(self, name: str) -> list[Path]:
        return [p for p in self._folder.glob("*@*.json") if p.name.partition("@")[0] == name]

    def _known(self) -> str:
        names = sorted(path.stem for path in self._folder.glob("*.conf"))
        return f"known are: {', '.join(names)}" if names else "none has been added"

    def _longest_stop(self) -> float:
        waits = [json.loads(p.read_text())["stopwaitsecs"] for p in self._folder.glob("*@*.json")]
        return float(max(waits, default=_STOP))

    def _refuse_inside(self, what: str) -> None:
        # It would end this very process, and what the process does for somebody.
        if os.environ.get(MARK) == str(self._socket):
            raise PlatformError(
                f"a service of the platform cannot {what} the platform",
                hint="run `tracklayer up` in a terminal",
            )

    def _drop(self, name: str) -> None:
        self._stop(name)
        rpc.call(self._socket, "removeProcessGroup", name)

    def _stop(self, name: str) -> None:
        if self._state(name) in _GOING:
            rpc.call(self._socket, "stopProcess", name, False)
        self._wait(
            lambda: self._state(name) in _ENDED,
            self._longest_stop() + _STOP,
            f"the service {name} does not end",
        )

    def _state(self, name: str) -> str:
        for status in self.status():
            if status.name == name:
                return status.state
        raise PlatformError(f"there is no service {name!r}", hint=self._known())

    def _wait(self, done: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise PlatformError(otherwise, hint=f"see {self._logs / 'supervisord.log'}")
            time.sleep(0.05)

    def _shut_down(self) -> None:
        """Waits until the process has ended: while it does, it removes the socket's file."""
        try:
            with suppress(xmlrpc.client.Fault):  # it is shutting down already
                rpc.ask(self._socket, "shutdown")
            pid = int((self._folder / _PID).read_text())
        except rpc.ABSENT:
            return
        who = linux.identity(pid)
        programs = len(list(self._folder.glob("*.conf"))) + 1
        self._wait(
            lambda: linux.identity(pid) != who or who is None,
            programs * (self._longest_stop() + _STOP),
            "supervisord does not end",
        )

    def _spawn(self) -> None:
        configuration = self._folder / "supervisord.ini"
        done = subprocess.run(
            [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(configuration)],
            # Without SPT_NOENV setproctitle writes over the place where the mark is looked for.
            env=passed_on()
            | {MARK: str(self._socket), "SPT_NOENV": "1"}
            | self._secrets
            | {launch.SECRETS: " ".join(self._secrets)},
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell starts what it puts into the background with SIGINT ignored, and a program
            # that the platform interrupts would never hear of it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            check=False,
        )
        if done.returncode != 0:
            said_last = "\n".join(done.stdout.strip().splitlines()[-5:])
            raise PlatformError(f"supervisord cannot start:\n{said_last}")


def _configuration(folder: Path, socket: Path, logs: Path) -> str:
    return f"""[supervisord]
logfile = {said(str(logs / "supervisord.log"))}
logfile_maxbytes = 10MB
logfile_backups = 3
pidfile = {said(str(folder / _PID))}
childlogdir = {said(str(logs))}
umask = 077

[unix_http_server]
file = {said(str(socket))}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[include]
files = *.conf
"""
