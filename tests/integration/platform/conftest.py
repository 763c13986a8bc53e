"""A platform for real, as a person has it: one home, its command line and its processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from tracklayer.private import roots
from tracklayer.runtimes import Job, Supervisor
from tracklayer.runtimes.orphans import end_marked, marked
from tracklayer.runtimes.supervisor import MARK
from tracklayer.settings import Settings, settings

if TYPE_CHECKING:
    from tests.conftest import FreePorts

_PROGRAMS = {"mlflow", "gateway", "api-server", "dag-processor", "scheduler"}
_PORTS = ("AIRFLOW", "MLFLOW", "GATEWAY", "GATEWAY_GRPC")
_PLANTED = "planted-secret-of-this-test"
_COMMAND = "import sys; from tracklayer.cli.main import run; sys.argv[0] = 'tracklayer'; run()"


class Platform:
    """One home, and the command line on it."""

    programs = _PROGRAMS
    planted = _PLANTED

    def __init__(self, root: Path, ports: list[int]) -> None:
        self.home = root / "home"
        self.ports = dict(zip(_PORTS, ports, strict=True))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
            "TRACKLAYER_HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(root),
            "HOME": str(root),
            **{f"TRACKLAYER_{name}_PORT": str(port) for name, port in self.ports.items()},
            # What a person may have set for other things, and must neither be used nor passed on.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/another.db",
            "AIRFLOW__API_AUTH__JWT_SECRET": _PLANTED,
            "AWS_SECRET_ACCESS_KEY": _PLANTED,
            # A proxy that nobody is at: what is on this machine is reached without one.
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        }
        for name in ("NO_PROXY", "no_proxy"):
            self.environment.pop(name, None)

    @property
    def supervisor(self) -> Supervisor:
        sockets = self.settings.sockets
        return Supervisor(self.home / "supervisor", sockets / "supervisor.sock", self.home / "logs")

    @property
    def settings(self) -> Settings:
        # Where the sockets are is read from the environment when it is asked for.
        os.environ["XDG_RUNTIME_DIR"] = self.environment["XDG_RUNTIME_DIR"]
        return Settings(home=self.home)

    @property
    def mark(self) -> str:
        return str(self.settings.sockets / "supervisor.sock")

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """A command in a session of its own, as in a terminal of its own."""
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND, *arguments],
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        process = self.start(*arguments, **more)
        output, _ = process.communicate(timeout=200)
        return process.returncode, output

    def up(self) -> str:
        code, output = self.command("up")
        assert code == 0, output + self.logs()
        return output

    def secrets(self) -> dict[str, str]:
        """The secrets of this home by name, and one that is of no use to it."""
        home = self.home / "airflow"
        passwords = json.loads((home / "passwords.json").read_text())
        keys = json.loads((home / "keys.json").read_text())
        return {**keys, **passwords, "planted": self.planted}

    def job(self, name: str, script: str) -> Job:
        """A job of this home that runs a script with the platform's own Python."""
        folder = roots(self.settings)[0] / "runs" / "p" / name
        code = folder.with_name(f"{name}-code")
        code.mkdir(parents=True)
        (code / "script.py").write_text(script)
        return Job(
            name=name,
            folder=folder,
            argv=["script.py"],
            code=code,
            python=Path(sys.executable),
            inputs={},
            hyperparameters={},
            env={},
            cpus=1,
            memory=1 << 30,
            timeout=600,
        )

    @staticmethod
    def until(done: Callable[[], bool], seconds: float = 60, what: str = "it") -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{what} did not happen in time"
            time.sleep(0.05)

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted((self.home / "logs").glob("*.log"))
        )

    def pids(self) -> dict[str, int]:
        """The process of each program that runs."""
        found = self.supervisor.status()
        return {
            status.name: status.pid for status in found if status.pid and status.state == "RUNNING"
        }

    def processes(self) -> list[psutil.Process]:
        """All processes of this platform, its supervisor and their children among them."""
        return marked(MARK, self.mark)

    def copies(self) -> Counter[str]:
        """How many processes there are of each program, without their children."""
        ours = {process.pid for process in self.processes()}
        tops = [psutil.Process(pid) for pid in ours]
        return Counter(
            name
            for process in tops
            if process.ppid() not in ours or _is_supervisord(process.ppid())
            for name in [_program(process)]
        )

    def one_of_each(self) -> bool:
        """Whether each program runs once, and nothing else does."""
        return self.copies() == Counter(dict.fromkeys((*self.programs, "supervisord"), 1))

    def healthy(self) -> bool:
        with suppress(httpx.HTTPError, ValueError), httpx.Client(trust_env=False) as client:
            base = f"http://127.0.0.1:{self.ports['AIRFLOW']}"
            health = client.get(f"{base}/api/v2/monitor/health").json()
            airflow = [health[p]["status"] for p in ("metadatabase", "scheduler", "dag_processor")]
            mlflow = client.get(f"http://127.0.0.1:{self.ports['MLFLOW']}/health")
            gateway = client.get(f"http://127.0.0.1:{self.ports['GATEWAY']}/-/health")
            return {*airflow} == {"healthy"} and mlflow.is_success and gateway.is_success
        return False


def _is_supervisord(pid: int) -> bool:
    with suppress(psutil.Error):
        return "supervisor.supervisord" in psutil.Process(pid).cmdline()
    return False


def _program(process: psutil.Process) -> str:
    command = " ".join(process.cmdline()).replace("_", "-")
    names = {"tracklayer.tracking.server": "mlflow", "tracklayer.gateway": "gateway"}
    names |= {"supervisor.supervisord": "supervisord"}
    names |= {f"airflow {name}": name for name in ("api-server", "dag-processor", "scheduler")}
    return next((name for part, name in names.items() if part in command), command)


@pytest.fixture(scope="module")
def platform(free_ports: FreePorts) -> Iterator[Platform]:
    root = Path(tempfile.mkdtemp(prefix="tl-"))  # short, for the sake of the sockets' paths
    before = os.environ.get("XDG_RUNTIME_DIR")
    made = Platform(root, free_ports(4))
    mark = made.mark
    yield made
    end_marked(MARK, mark, grace=5)
    shutil.rmtree(root, ignore_errors=True)
    if before is None:
        del os.environ["XDG_RUNTIME_DIR"]
    else:
        os.environ["XDG_RUNTIME_DIR"] = before


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    yield
    settings.cache_clear()
