"""The platform for real, started and stopped as a person does it.

One platform for the module: the tests are in the order of its life.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tracklayer.runtimes import Job, ProcessRuntime, Supervisor
from tracklayer.runtimes.orphans import end_marked, marked
from tracklayer.runtimes.supervisor import MARK
from tracklayer.settings import Settings, settings

PROGRAMS = {"mlflow", "gateway", "api-server", "dag-processor", "scheduler"}
PORTS = ("AIRFLOW", "MLFLOW", "GATEWAY")
PLANTED = "planted-secret-of-this-test"
COMMAND = "import sys; from tracklayer.cli.main import run; sys.argv[0] = 'tracklayer'; run()"


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, all of them different."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [server.getsockname()[1] for server in servers]


def until(done: Callable[[], bool], seconds: float = 60, what: str = "it") -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.05)


class Platform:
    """One home, and the command line on it."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.ports = dict(zip(PORTS, free_ports(3), strict=True))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
            "TRACKLAYER_HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(root),
            "HOME": str(root),
            **{f"TRACKLAYER_{name}_PORT": str(port) for name, port in self.ports.items()},
            # What a person may have set for other things, and must neither be used nor passed on.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/another.db",
            "AIRFLOW__API_AUTH__JWT_SECRET": PLANTED,
            "AWS_SECRET_ACCESS_KEY": PLANTED,
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
            [sys.executable, "-P", "-c", COMMAND, *arguments],
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


ONE_OF_EACH = Counter(dict.fromkeys((*PROGRAMS, "supervisord"), 1))


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    root = Path(tempfile.mkdtemp(prefix="tl-"))  # short, for the sake of the sockets' paths
    before = os.environ.get("XDG_RUNTIME_DIR")
    made = Platform(root)
    mark = made.mark
    yield made
    end_marked(MARK, mark, grace=5)
    shutil.rmtree(root, ignore_errors=True)
    if before is None:
        del os.environ["XDG_RUNTIME_DIR"]
    else:
        os.environ["XDG_RUNTIME_DIR"] = before


def interrupt(platform: Platform, moment: Callable[[str], bool]) -> str:
    """Ctrl-C in a terminal that ``up`` runs in, as soon as it has said something; its output."""
    process = platform.start("up")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if moment(line):
            break
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said + rest
    assert "Traceback" not in said + rest
    return said + rest


def says(*words: str) -> Callable[[str], bool]:
    return lambda line: all(word in line for word in words)


def database_begun(platform: Platform) -> Callable[[str], bool]:
    """In the middle of making Airflow's tables: some are there, and not all."""

    def moment(line: str) -> bool:
        if "Preparing" not in line:
            return False
        path = platform.home / "airflow" / "airflow.db"
        until(lambda: path.exists() and path.stat().st_size > 100_000)
        return True

    return moment


def test_nothing_but_an_error_when_git_is_missing(platform: Platform, tmp_path: Path) -> None:
    code, output = platform.command("up", PATH=str(tmp_path))
    assert code == 13
    assert "git: not found" in output
    assert "apt install git" in output
    assert not platform.processes()


def test_nothing_but_an_error_when_the_home_has_no_space(platform: Platform) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tl-full-"))
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if os.getuid() or subprocess.run(mount, check=False).returncode:
            pytest.skip("only root can make a small disk here")
        try:
            (folder / "full").write_bytes(b"x" * 1024 * 1020)
            for home in (folder, folder / "home"):
                code, output = platform.command("up", TRACKLAYER_HOME=str(home))
                assert code == 13, output
                assert str(home) in output
                assert "Traceback" not in output
                assert "TRACKLAYER_HOME" in output
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            code, output = platform.command("up", TRACKLAYER_HOME=str(folder / "home"))
            assert code == 13, output
            assert "cannot be written: Read-only file system" in output
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()


def test_up_can_be_interrupted_at_any_moment(platform: Platform) -> None:
    interrupt(platform, database_begun(platform))
    assert not platform.processes()
    interrupt(platform, says("Starting the supervisor"))
    interrupt(platform, says("Starting api-server"))
    output = platform.up()
    assert "Traceback" not in output
    assert platform.healthy()
    assert platform.copies() == ONE_OF_EACH


def test_up_again_changes_nothing_and_two_at_once_are_one_too_many(platform: Platform) -> None:
    before = platform.pids()
    assert set(before) == PROGRAMS
    keys = (platform.home / "airflow/keys.json").read_text()
    both = [platform.start("up"), platform.start("up")]
    outputs = {process.communicate(timeout=100)[0]: process.returncode for process in both}
    assert sorted(outputs.values()) == [0, 13], outputs
    said, refused = sorted(outputs, key=lambda output: outputs[output])
    assert "Another `tracklayer up` or `down` works on this home" in refused
    for port in platform.ports.values():
        assert f"http://127.0.0.1:{port}" in said
    password = json.loads((platform.home / "airflow/passwords.json").read_text())["admin"]
    assert password not in said
    assert platform.pids() == before
    assert (platform.home / "airflow/keys.json").read_text() == keys


def test_another_airflow_of_this_person_is_left_alone(platform: Platform) -> None:
    assert (platform.home / "airflow" / "airflow.db").exists()
    assert not (platform.home.parent / "another.db").exists()
    assert not (platform.home.parent / "airflow").exists()


def test_state_and_secrets_are_for_the_owner_alone(platform: Platform) -> None:
    for folder in (platform.home, platform.home / "airflow", platform.home / "supervisor"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert stat.S_IMODE(platform.settings.sockets.stat().st_mode) == 0o700
    secret = ["airflow/airflow.cfg", "airflow/passwords.json", "airflow/keys.json"]
    files = [platform.home / name for name in secret]
    files += [*(platform.home / "supervisor").glob("*.conf")]
    files += [*(platform.home / "supervisor").glob("*.json")]
    files += [platform.home / "supervisor" / "supervisord.ini"]
    assert len(files) > 10
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for path in platform.settings.sockets.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def secrets(platform: Platform) -> dict[str, str]:
    """The secrets of this home by name, and one that is of no use to it."""
    home = platform.home / "airflow"
    passwords = json.loads((home / "passwords.json").read_text())
    keys = json.loads((home / "keys.json").read_text())
    return {**keys, **passwords, "planted": PLANTED}


def test_no_secret_is_in_a_command_line_an_environment_or_a_log(platform: Platform) -> None:
    base = f"http://127.0.0.1:{platform.ports['AIRFLOW']}"
    known = secrets(platform)
    with httpx.Client(trust_env=False) as client:
        login = {"username": "admin", "password": known["admin"]}
        assert client.post(f"{base}/auth/token", json=login).status_code == 201
        wrong = login | {"password": f"wrong-{known['admin']}"}
        assert client.post(f"{base}/auth/token", json=wrong).status_code == 401
    processes = platform.processes()
    assert len(processes) > len(PROGRAMS)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            shown = " ".join(process.cmdline()) + str(process.environ())
            for name, secret in known.items():
                assert secret not in shown, f"{name} in {process.cmdline()}"
    logs = [path for path in platform.home.rglob("*.log*") if path.is_file()]
    assert len(logs) >= len(PROGRAMS)
    for log in logs:
        text = log.read_text(errors="replace")
        for name, secret in known.items():
            assert secret not in text, f"{name} in {log}"


def test_a_job_gets_nothing_of_airflows(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run from the environment that the scheduler of this platform has."""
    for name in os.environ:
        monkeypatch.delenv(name)
    scheduler = psutil.Process(platform.pids()["scheduler"])
    for name, value in (scheduler.environ() | {"AIRFLOW__API__SECRET_KEY": PLANTED}).items():
        monkeypatch.setenv(name, value)
    code = tmp_path / "code"
    code.mkdir()
    (code / "show.py").write_text(
        "import json, os\n"
        "guard = open(f'/proc/{os.getppid()}/environ').read()\n"
        "print(json.dumps([dict(os.environ), guard]))\n"
    )
    job = Job(
        name="show",
        folder=platform.home / "runs" / "p" / "show",
        argv=["show.py"],
        code=code,
        python=Path(sys.executable),
        inputs={},
        hyperparameters={},
        env={},
        cpus=1,
        memory=1 << 30,
        timeout=60,
    )
    lines: list[str] = []
    ProcessRuntime().run(job, on_line=lines.append)
    environment, guard = json.loads(lines[-1])
    assert PLANTED not in str(environment) + guard
    assert not [name for name in environment if name.startswith("AIRFLOW")]
    assert "AIRFLOW" not in guard
    assert "SM_MODEL_DIR" in environment


def test_a_run_goes_through_although_there_is_a_proxy(platform: Platform, tmp_path: Path) -> None:
    """The worker asks Airflow's own API, at an address of this machine."""
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "model").write_text("no model, but that is not what this is about")
    (folder / "tracklayer.yaml").write_text(
        "name: hello\ntemplate: deploy-pretrained@1\nsources: {model: 'path:model'}\n"
    )
    code, output = platform.command("push", str(folder))
    assert code == 0, output
    base = f"http://127.0.0.1:{platform.ports['AIRFLOW']}"
    with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
        login = {"username": "admin", "password": secrets(platform)["admin"]}
        token = client.post("/auth/token", json=login).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        until(lambda: client.get("/api/v2/dags/hello").status_code == 200, 30, "the DAG")
        run = client.post("/api/v2/dags/hello/dagRuns", json={"logical_date": None}).json()
        url = f"/api/v2/dags/hello/dagRuns/{run['dag_run_id']}"

        def tasks() -> dict[str, Any]:
            found = client.get(f"{url}/taskInstances").json()["task_instances"]
            return {task["task_id"]: task["state"] for task in found}

        until(lambda: tasks()["provision"] in ("success", "failed"), 60, "the first step")
        assert tasks()["provision"] == "success", platform.logs()


def test_a_port_in_use_is_named_with_its_holder_and_the_variable(
    platform: Platform, tmp_path: Path
) -> None:
    code, output = platform.command("up", TRACKLAYER_HOME=str(tmp_path / "second"))
    port = platform.ports["AIRFLOW"]
    holder = next(
        found.pid
        for found in psutil.net_connections("tcp")
        if found.laddr and found.laddr.port == port and found.status == psutil.CONN_LISTEN
    )
    assert code == 13, output
    assert f"Port {port} of 127.0.0.1: in use by" in output
    assert f"(process {holder})" in output
    assert "TRACKLAYER_AIRFLOW_PORT" in output
    written = [p for p in (tmp_path / "second").rglob("*") if p.is_file() and p.stat().st_size]
    assert written == [], "nothing is half started"


def test_what_is_killed_is_started_again(platform: Platform) -> None:
    before = platform.pids()
    assert set(before) == PROGRAMS
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def all_new() -> bool:
        now = platform.pids()
        return set(now) == PROGRAMS and not set(now.values()) & set(before.values())

    until(all_new, 30, "the restart")
    until(platform.healthy, 60, "health")
    # Not even the workers of the scheduler that was killed, which would wait for ever.
    until(lambda: platform.copies() == ONE_OF_EACH, 10, f"one of each: {platform.copies()}")


def test_a_killed_supervisor_leaves_no_second_copy(platform: Platform) -> None:
    before = platform.pids()
    os.kill(int((platform.home / "supervisor/supervisord.pid").read_text()), signal.SIGKILL)
    until(lambda: not platform.supervisor.alive(), 10)
    platform.up()
    assert platform.healthy()
    assert platform.copies() == ONE_OF_EACH
    assert not set(before.values()) & set(platform.pids().values())


def test_down_leaves_no_process(platform: Platform, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "long.py").write_text("import time; print('runs', flush=True); time.sleep(600)")
    job = Job(
        name="long",
        folder=platform.home / "runs" / "p" / "long",
        argv=["long.py"],
        code=code,
        python=Path(sys.executable),
        inputs={},
        hyperparameters={},
        env={},
        cpus=1,
        memory=1 << 30,
        timeout=600,
    )
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


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    yield
    settings.cache_clear()
