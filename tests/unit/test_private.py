"""Folders for what is decrypted: where they lie, who may read them, and that they go."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracklayer import private
from tracklayer.errors import PlatformError
from tracklayer.private import remove_run, run_folder, run_folders, run_name, sweep_temporary
from tracklayer.settings import settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose private folders lie in it, and nothing of anybody else's settings."""
    monkeypatch.setenv("TRACKLAYER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRACKLAYER_PRIVATE", str(tmp_path / "private"))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


@pytest.fixture
def memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nobody has chosen a folder."""
    monkeypatch.delenv("TRACKLAYER_PRIVATE")
    settings.cache_clear()
    first = private.roots()[0]
    yield first
    if first.exists():
        first.rmdir()


def test_a_folder_of_ones_own_choice(home: Path) -> None:
    (root,) = private.roots()
    assert root.parent == home / "private"
    folder = run_folder("digits", "run/1", "inputs")
    assert folder.parent == root / "runs/digits" / run_name("run/1")
    assert not folder.exists()
    assert folder.parent.is_dir()


@pytest.mark.usefixtures("home")
def test_only_its_owner_can_read_it() -> None:
    with private.temporary() as folder:
        (root,) = private.roots()
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_memory_comes_first_and_the_disk_takes_what_does_not_fit(memory: Path, home: Path) -> None:
    if not private._is_tmpfs(private._MEMORY):
        assert private.roots() == [home / "home/private"]
        return
    assert private.roots() == [memory, home / "home/private"]
    with private.temporary(1) as folder:
        assert folder.is_relative_to(memory)
    with private.temporary(1 << 60) as folder:
        assert folder.is_relative_to(home / "home/private")
    (memory / "temporary").rmdir()


@pytest.mark.usefixtures("home")
def test_a_part_of_a_run_is_found_where_it_was_put() -> None:
    folder = run_folder("a", "r", "job")
    folder.mkdir()
    assert run_folder("a", "r", "job", size=1 << 60) == folder
    assert run_folders("a") == [folder.parent]
    assert run_folders("b") == []


@pytest.mark.usefixtures("home")
def test_a_run_that_is_over_leaves_nothing() -> None:
    for run in ("one", "two"):
        folder = run_folder("a", run, "job")
        folder.mkdir()
        (folder / "secret").write_text("secret")
    remove_run("a", run_name("one"))
    assert [folder.name for folder in run_folders()] == [run_name("two")]
    remove_run("a", run_name("two"))
    remove_run("a", run_name("two"))
    (root,) = private.roots()
    assert list((root / "runs").iterdir()) == []


@pytest.mark.usefixtures("home")
def test_names_of_runs() -> None:
    assert run_name("a/b") != run_name("a-b")
    assert "/" not in run_name("../../x")
    assert not run_name("...").startswith(".")
    assert len(run_name("x" * 1000)) < 100


@pytest.mark.usefixtures("home")
def test_what_a_killed_process_had_is_swept_and_what_a_living_one_has_stays() -> None:
    program = """
import sys
from tracklayer.private import temporary
with temporary() as folder:
    (folder / "secret").write_text("secret")
    print(folder, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(private.__file__).parent.parent)},
        text=True,
    ) as child:
        assert child.stdout
        folder = Path(child.stdout.readline().strip())
        sweep_temporary()
        assert (folder / "secret").exists()
        child.send_signal(signal.SIGKILL)
    sweep_temporary()
    assert not folder.exists()


def test_a_folder_of_somebody_else_is_not_taken(home: Path) -> None:
    (root,) = private.roots()
    root.parent.mkdir(parents=True)
    root.symlink_to(home)
    with pytest.raises(PlatformError, match="TRACKLAYER_PRIVATE"), private.temporary():
        pass
