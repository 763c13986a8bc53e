"""The commands on this machine's platform where there is none yet, or only a part of one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

RUN = [sys.executable, "-c", "from tracklayer.cli.main import run; run()"]


@pytest.fixture
def home():
    # Short, since the paths of sockets under it may have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="tl-"))
    yield root
    for process in of(root):
        process.kill()
    shutil.rmtree(root)


def of(home: Path) -> list[psutil.Process]:
    """The processes that have this home in their environment, but for this one's children."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TRACKLAYER_HOME") == str(home / "home"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACKLAYER")}
    ports = {}
    for name in ("AIRFLOW", "MLFLOW", "GATEWAY", "GATEWAY_GRPC"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[f"TRACKLAYER_{name}_PORT"] = str(free.getsockname()[1])
    return kept | ports | {"TRACKLAYER_HOME": str(home / "home"), "XDG_RUNTIME_DIR": str(home)}


def cli(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments], env=environment(home), capture_output=True, text=True, check=False
    )


def test_without_a_platform(home):
    for command in ("status", "runs"):
        done = cli(home, command)
        assert (done.returncode, done.stdout) == (13, "")
        assert "Start it with `tracklayer up`." in done.stderr
    assert cli(home, "down").returncode == 0
    assert not (home / "home").exists()


def test_doctor_says_what_is_there(home):
    done = cli(home, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["git"]["ok"] is True
    lacking = [check for check in checks.values() if check["required"] and not check["ok"]]
    assert all(check["hint"] for check in lacking)
    assert done.returncode == (13 if lacking else 0)
    assert "git version" in cli(home, "doctor").stdout


def test_an_interrupted_demo_says_what_runs_and_leaves_what_it_says(home):
    with subprocess.Popen(
        [*RUN, "demo"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert first.startswith("Preparing")
    assert process.returncode == 130
    assert "Interrupted. Nothing of the platform runs" in rest
    assert "Traceback" not in rest
    assert of(home) == []
