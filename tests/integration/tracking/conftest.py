from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tracklayer.tracking.server import command

if TYPE_CHECKING:
    from tests.conftest import FreePorts


def start(home: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """A server as the platform starts it; returns when it answers."""
    argv, environment = command(home, "127.0.0.1", port)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            argv, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT
        )
    for _ in range(1200):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                return process
        except httpx.TransportError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    pytest.fail(log.read_text())


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps everything."""
    return tmp_path_factory.mktemp("mlflow") / "home"


@pytest.fixture(scope="session")
def server(home: Path, free_ports: FreePorts) -> Iterator[str]:
    """The address of a real MLflow server on SQLite."""
    (port,) = free_ports(1)
    process = start(home, port, home.with_name("log"))
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)
