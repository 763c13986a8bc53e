"""A hub that speaks Hugging Face's and Kaggle's protocols, and people who fetch from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from tracklayer.sources import Credential, Fetched, fetch
from tracklayer.store import Store

if TYPE_CHECKING:
    from tests.conftest import Hub

SECRET = "hf_of_a_test"


@pytest.fixture
def hub(hub_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, which behaves and remembers nothing; a person without a home or a token."""
    httpx.post(f"{hub_server.url}/_reset").raise_for_status()
    for name in [name for name in os.environ if name.startswith(("HF_", "KAGGLE_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", hub_server.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield hub_server
    shutil.rmtree(hub_server.root / "kaggle", ignore_errors=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class Person:
    """Fetches, and keeps what was said meanwhile."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self._folder = store, folder
        self.said: list[str] = []
        self.credential: Credential | None = None

    def fetch(self, handle: str, **options: Any) -> Fetched:
        return fetch(
            handle,
            project=self._folder,
            store=self.store,
            on_progress=self.said.append,
            credential=lambda _kind: self.credential,
            **options,
        )

    def read(self, fetched: Fetched) -> dict[str, bytes]:
        """The content of all files by path."""
        content = {}
        for file in fetched.manifest.files:
            with self.store.open(file) as stream:
                content[file.path] = stream.read()
        return content

    def command_lines(self) -> list[str]:
        """Those of this process and of all that it has started."""
        here = psutil.Process()
        return [" ".join(each.cmdline()) for each in [here, *here.children(recursive=True)]]


@pytest.fixture
def person(store: Store, tmp_path: Path) -> Person:
    return Person(store, tmp_path)


@pytest.fixture
def their_client(hub: Hub, tmp_path: Path) -> Callable[..., None]:
    """Runs Python code in a process of its own, with the clients' libraries led to the hub."""

    def run(code: str, **variables: str) -> None:
        (tmp_path / "home").mkdir(exist_ok=True)
        environment = os.environ | {
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "HTTP_PROXY": hub.url,
            "NO_PROXY": "127.0.0.1",
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return run
