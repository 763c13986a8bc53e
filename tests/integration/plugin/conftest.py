"""A real Airflow web server with the plugin in it, a home of its own, and the real gateway."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tracklayer.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import FreePorts

PASSWORDS = {"ann": "of-ann", "vera": "of-vera"}  # an administrator, and one who may only look


@dataclass
class Web:
    """A running web server: its address, the platform's home, the log."""

    url: str
    home: Path
    log: Path

    def client(self, user: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        return httpx.Client(
            base_url=f"{self.url}/tracklayer", headers=headers, timeout=60, trust_env=False
        )

    def token(self, user: str) -> str:
        body = {"username": user, "password": PASSWORDS[user]}
        answer = httpx.post(f"{self.url}/auth/token", json=body, trust_env=False, timeout=60)
        return str(answer.raise_for_status().json()["access_token"])


@pytest.fixture(scope="session")
def web(free_ports: FreePorts) -> Iterator[Web]:
    # Short, since the sockets under it may have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="tl-"))
    port, gateway_port = free_ports(2)
    home, airflow = root / "home", root / "airflow"
    for folder in (home, airflow / "dags", airflow / "plugins"):
        folder.mkdir(parents=True)
    (airflow / "passwords.json").write_text(json.dumps(PASSWORDS))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(airflow),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin,vera:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow / "passwords.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "TRACKLAYER_HOME": str(home),
        "TRACKLAYER_AIRFLOW_PORT": str(port),
        "TRACKLAYER_GATEWAY_PORT": str(gateway_port),
        "XDG_RUNTIME_DIR": str(root),
    }
    routes = {"live": {"version": 7, "backends": [str(root / "model.sock")]}}
    (root / "routes.json").write_text(json.dumps(routes))
    log = root / "log"
    python = [sys.executable, "-m"]
    gateway = [*python, "tracklayer.gateway", "--host", "127.0.0.1", "--port", str(gateway_port)]
    gateway += ["--admin", str(_sockets(root, home) / "gateway.sock")]
    gateway += ["--routes", str(root / "routes.json"), "--state", str(root / "gateway")]
    with log.open("wb") as stream:
        subprocess.run(
            [*python, "airflow", "db", "migrate"], env=environment, stdout=stream, stderr=stream,
            check=True,
        )  # fmt: skip
        started = [
            subprocess.Popen(argv, env=environment, stdout=stream, stderr=stream)
            for argv in ([*python, "airflow", "api-server"], gateway)
        ]
        try:
            _wait(f"http://127.0.0.1:{port}/api/v2/version", started[0], log)
            _wait(f"http://127.0.0.1:{gateway_port}/-/health", started[1], log)
            yield Web(f"http://127.0.0.1:{port}", home, log)
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)
            shutil.rmtree(root)


def _sockets(runtime: Path, home: Path) -> Path:
    """Where the settings of the platform in ``home`` have its sockets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        return Settings(home=home).sockets


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} does not answer:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)
