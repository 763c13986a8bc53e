from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tracklayer.store import Store, keys_of
from tracklayer.tracking.server import command

if TYPE_CHECKING:
    from tests.conftest import FreePorts


class Server:
    """A tracking server as the platform starts it, and its platform's home.

    :param home: of the platform; MLflow's own is ``mlflow`` in it.
    """

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.private = home.with_name(f"{home.name}-private")
        self.log = home.with_name(f"{home.name}.log")
        self._argv, environment = command(home / "mlflow", "127.0.0.1", port)
        own = {"TRACKLAYER_HOME": str(home), "TRACKLAYER_PRIVATE": str(self.private)}
        self._environment = {**os.environ, **environment, **own}

    def start(self) -> None:
        """Returns when it answers."""
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                self._argv, env=self._environment, stdout=stream, stderr=subprocess.STDOUT
            )
        for _ in range(1200):
            try:
                if httpx.get(f"{self.url}/health").is_success:
                    return
            except httpx.TransportError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.kill()
        pytest.fail(self.log.read_text())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)  # on a busy machine

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)  # on a busy machine

    @property
    def store(self) -> Store:
        """The store of its platform."""
        root = self.home / "store"
        return Store(root, keys_of(f"file:{self.home / 'keys' / 'store'}", root=root))

    def temporary(self) -> list[Path]:
        """What it has in its private folder."""
        return [path for path in self.private.glob("*/temporary/*/**/*") if path.is_file()]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts) -> Iterator[Server]:
    """A real MLflow server on SQLite and a store."""
    found = Server(tmp_path_factory.mktemp("mlflow") / "home", free_ports(1)[0])
    found.start()
    yield found
    found.stop()


@pytest.fixture
def own_server(tmp_path: Path, free_ports: FreePorts) -> Iterator[Server]:
    """One for this test alone, not started yet."""
    found = Server(tmp_path / "home", free_ports(1)[0])
    yield found
    if found.process.poll() is None:
        found.kill()


@pytest.fixture(scope="session")
def server(served: Server) -> str:
    """The address of the real server."""
    return served.url
