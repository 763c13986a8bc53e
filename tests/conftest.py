"""What all tests share: homes that are nobody's, and a repository that somebody pushes to.

Before any test is read, Airflow and Tracklayer are given temporary homes: no test sees the
platform of the person who runs it.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Never

import httpx
import psutil
import pytest

from tracklayer.projects import Repository
from tracklayer.settings import settings

FreePorts = Callable[[int], list[int]]
Watch = Callable[..., AbstractContextManager[set[str]]]

_ROOT = pytest.StashKey[Path]()
_HUB = Path(__file__).parent / "hub" / "server.py"


def pytest_configure(config: pytest.Config) -> None:
    """Forget the person's settings, and give this test run homes of its own."""
    # In the background a shell has SIGINT ignored, and every program that a test interrupts too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    root = Path(tempfile.mkdtemp(prefix="tracklayer-tests-"))
    config.stash[_ROOT] = root
    theirs = ("AIRFLOW", "TRACKLAYER_", "AWS_", "HF_", "KAGGLE_")
    for name in [name for name in os.environ if name.startswith(theirs)]:
        del os.environ[name]
    os.environ |= {
        "TRACKLAYER_HOME": str(root / "home"),
        "TRACKLAYER_PRIVATE": str(root),
        "AIRFLOW_HOME": str(root / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The longest that a task's end can go unnoticed when its supervisor misses it.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # As on the platform; Airflow reads it when it is imported.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_GIT_DEFAULT": '{"conn_type": "git"}',
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    shutil.rmtree(config.stash[_ROOT], ignore_errors=True)


@pytest.fixture(scope="session")
def free_ports() -> FreePorts:
    """So many ports of loopback that nobody has, and that nobody was given before.

    They are below those that the system gives to whoever wants any (ip(7)): one of them could be
    taken for a connection before its server is started, or while it is started again.
    """
    candidates = iter(random.sample(range(20_000, 32_000), 12_000))

    def free(port: int) -> bool:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return True
        return False

    return lambda count: list(itertools.islice(filter(free, candidates), count))


@pytest.fixture(scope="session")
def give_up() -> Callable[[str], Never]:
    """End a test for want of what it names: a person's machine may lack it, ``.ci/run`` may not."""

    def end(lack: str) -> Never:
        if os.environ.get("CI"):
            pytest.fail(lack)
        pytest.skip(lack)

    return end


class Hub:
    """The running program; see there for what it serves and how it is steered."""

    def __init__(self, process: subprocess.Popen[str], root: Path) -> None:
        assert process.stdout
        where = json.loads(process.stdout.readline())
        self.url, self.cdn, self.root = where["url"], where["cdn"], root

    def knobs(self, **values: float | str) -> None:
        """Make it slow, small or faulty."""
        httpx.post(f"{self.url}/_knobs", json=values).raise_for_status()

    def push(self, repository: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Commit exactly these files to ``models/org/name``; the commit."""
        packed = {name: base64.b64encode(data).decode() for name, data in files.items()}
        asked = {"repository": repository, "files": packed, "ref": ref}
        return str(httpx.post(f"{self.url}/_push", json=asked).json()["commit"])

    def kaggle(self, place: str, files: Mapping[str, bytes]) -> Path:
        """Lay files into ``datasets/owner/name/<version>`` or the like; the folder."""
        folder = self.root / "kaggle" / place
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def log(self) -> list[dict[str, Any]]:
        """Every request since the test began, with its headers and the status of its answer."""
        log: list[dict[str, Any]] = httpx.get(f"{self.url}/_log").json()
        return log

    def asked(self, part: str = "") -> list[str]:
        """The paths of the requests that contain something."""
        return [each["path"] for each in self.log() if part in each["path"]]


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A running hub with the usual repositories."""
    root = tmp_path_factory.mktemp("hub")
    command = [sys.executable, str(_HUB), "--root", str(root), "--stock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Hub(process, root)
        finally:
            process.terminate()


class Remote:
    """A bare repository of projects, and a person with a git of their own: nothing is checked."""

    def __init__(self, folder: Path) -> None:
        self.url = folder / "projects.git"
        self.repository = Repository(str(self.url), cache=folder / "mirror")
        self._work = folder / "work"

    def push(self, files: Mapping[str, str | bytes | None], *, branch: str = "main") -> str:
        """Commit the files (path to content; None deletes a path) and push that; the commit."""
        if not self._work.exists():
            self.repository.create()
            self._git("init", "--quiet", f"--initial-branch={branch}", str(self._work), at=".")
        for name, content in files.items():
            path = self._work / name
            if content is None:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message=Push")
        self._git("push", "--quiet", str(self.url), f"HEAD:refs/heads/{branch}")
        return self._git("rev-parse", "HEAD").strip()

    def link(self, name: str, target: str) -> str:
        """Commit a symbolic link and push that; the commit."""
        (self._work / name).symlink_to(target)
        return self.push({})

    def _git(self, *arguments: str, at: str | None = None) -> str:
        who = {"NAME": "A Person", "EMAIL": "a@example.org"}
        person = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}
        return subprocess.run(
            # As it was written: no line end is changed on the way.
            ["git", "-c", "core.autocrlf=false", *arguments],
            cwd=at or self._work,
            env=os.environ | person,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """A repository of projects that does not exist until the first push."""
    folder = tmp_path / "remote"
    folder.mkdir()
    return Remote(folder)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home for this test alone."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TRACKLAYER_HOME", str(folder))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture
def own_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of pipeline templates beside the platform's own, with ``TRACKLAYER_TEMPLATES``."""
    from tracklayer.platform import check

    def forget() -> None:
        settings.cache_clear()
        check._template_folders.cache_clear()
        check._template.cache_clear()

    folder = tmp_path / "templates"
    folder.mkdir()
    monkeypatch.setenv("TRACKLAYER_TEMPLATES", str(folder))
    forget()
    yield folder
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="session")
def shown_by_processes() -> Watch:
    """``with shown_by_processes("cmdline", "environ") as seen:`` what all processes of this
    machine show in the meantime, as far as they live long enough."""
    return _shown_by_processes


@contextmanager
def _shown_by_processes(*names: str) -> Iterator[set[str]]:
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            for pid in psutil.pids():
                for name in names:
                    with suppress(OSError):
                        seen.add(
                            Path("/proc", str(pid), name).read_bytes().decode(errors="replace")
                        )

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
