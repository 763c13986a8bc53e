"""What the integration tests of several rooms start."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Never

import pytest


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a cloud that speaks AWS's protocols."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def nobodys_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


class TightDisk:
    """A file system in memory; a test says to the page how much room is left on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def leave(self, pages: int) -> None:
        """Fill it, all but so many pages."""
        self.clear()
        found = os.statvfs(self.folder)
        with self._filler.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, (found.f_bavail - pages) * found.f_bsize)

    def clear(self) -> None:
        """There is room again."""
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def tight_disk(tmp_path: Path, give_up: Callable[[str], Never]) -> Iterator[TightDisk]:
    """A real disk of 16 MiB that can be full at any write."""
    folder = tmp_path / "tight"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        give_up("a file system cannot be mounted")
    yield TightDisk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)
