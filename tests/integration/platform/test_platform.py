"""The platform for real, started and stopped as a person does it.

One platform for the module: the tests are in the order of its life.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import httpx
import psutil
import pytest

from tracklayer.runtimes import ProcessRuntime

if TYPE_CHECKING:
    from tests.integration.platform.conftest import Platform


def interrupt(platform: Platform, moment: Callable[[str], bool]) -> str:
    """Ctrl-C in a terminal that ``up`` runs in, as soon as it has said something; its output."""
    process = platform.start("up")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if moment(line):
            break
    else:
        pytest.fail(f"`up` ended before: {said}{platform.logs()}")
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
        platform.until(lambda: path.exists() and path.stat().st_size > 100_000)
        return True

    return moment


def test_nothing_but_an_error_when_git_is_missing(platform: Platform, tmp_path: Path) -> None:
    code, output = platform.command("up", PATH=str(tmp_path))
    assert code == 13
    assert "git: not found" in output
    assert "apt install git" in output
    assert not platform.processes()


def test_nothing_but_an_error_when_the_home_has_no_space(
    platform: Platform, give_up: Callable[[str], Never]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tl-full-"))
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if os.getuid() or subprocess.run(mount, check=False).returncode:
            give_up("only root can make a small disk here")
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
    assert platform.one_of_each()


def test_up_again_changes_nothing_and_two_at_once_are_one_too_many(platform: Platform) -> None:
    before = platform.pids()
    assert set(before) == platform.programs
    keys = (platform.home / "airflow/keys.json").read_text()
    both = [platform.start("up"), platform.start("up")]
    outputs = {process.communicate(timeout=100)[0]: process.returncode for process in both}
    assert sorted(outputs.values()) == [0, 13], outputs
    said, refused = sorted(outputs, key=lambda output: outputs[output])
    assert "Another `tracklayer up` or `down` works on this home" in refused
    for port in platform.ports.values():
        assert f"127.0.0.1:{port}" in said
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


def test_no_secret_is_in_a_command_line_an_environment_or_a_log(platform: Platform) -> None:
    base = f"http://127.0.0.1:{platform.ports['AIRFLOW']}"
    known = platform.secrets()
    with httpx.Client(trust_env=False) as client:
        login = {"username": "admin", "password": known["admin"]}
        assert client.post(f"{base}/auth/token", json=login).status_code == 201
        wrong = login | {"password": f"wrong-{known['admin']}"}
        assert client.post(f"{base}/auth/token", json=wrong).status_code == 401
    processes = platform.processes()
    assert len(processes) > len(platform.programs)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            shown = " ".join(process.cmdline()) + str(process.environ())
            for name, secret in known.items():
                assert secret not in shown, f"{name} in {process.cmdline()}"
    logs = [path for path in platform.home.rglob("*.log*") if path.is_file()]
    assert len(logs) >= len(platform.programs)
    for log in logs:
        text = log.read_text(errors="replace")
        for name, secret in known.items():
            assert secret not in text, f"{name} in {log}"


def test_a_job_gets_nothing_of_airflows(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run from the environment that the scheduler of this platform has."""
    for name in os.environ:
        monkeypatch.delenv(name)
    scheduler = psutil.Process(platform.pids()["scheduler"])
    for name, value in (
        scheduler.environ() | {"AIRFLOW__API__SECRET_KEY": platform.planted}
    ).items():
        monkeypatch.setenv(name, value)
    job = platform.job(
        "show",
        "import json, os\n"
        "guard = open(f'/proc/{os.getppid()}/environ').read()\n"
        "print(json.dumps([dict(os.environ), guard]))\n",
    )
    lines: list[str] = []
    ProcessRuntime().run(job, on_line=lines.append)
    environment, guard = json.loads(lines[-1])
    assert platform.planted not in str(environment) + guard
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
        login = {"username": "admin", "password": platform.secrets()["admin"]}
        token = client.post("/auth/token", json=login).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        platform.until(lambda: client.get("/api/v2/dags/hello").status_code == 200, 30, "the DAG")
        run = client.post("/api/v2/dags/hello/dagRuns", json={"logical_date": None}).json()
        url = f"/api/v2/dags/hello/dagRuns/{run['dag_run_id']}"

        def tasks() -> dict[str, Any]:
            found = client.get(f"{url}/taskInstances").json()["task_instances"]
            return {task["task_id"]: task["state"] for task in found}

        platform.until(lambda: tasks()["provision"] in ("success", "failed"), 60, "the first step")
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
