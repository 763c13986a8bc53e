from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracklayer.errors import ProjectError
from tracklayer.projects.files import MAX_FILE, MAX_FILES, Entry, checked, entries_of, entry_from
from tracklayer.projects.git import Git

NOBODY = 65534  # credentials(7)


@pytest.fixture
def git(tmp_path: Path) -> Git:
    folder = tmp_path / "mirror"
    folder.mkdir()
    git = Git(folder)
    git.run("init", "--quiet", "--bare")
    return git


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "tracklayer.yaml").write_text("name: a\n")
    return folder


def paths(entries: list[Entry]) -> list[str]:
    return [entry.path for entry in entries]


def test_ignored_files_and_litter_stay_behind(folder: Path, git: Git) -> None:
    for name in (
        ".gitignore",
        "sub/.gitignore",
        "keep.txt",
        "sub/keep.txt",
        "sub/no.log",
        "data/big.csv",
        ".git/config",
        ".venv/pyvenv.cfg",
        "__pycache__/x.cpython-311.pyc",
        "ünï cödé.txt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".gitignore").write_text("data/\n!.venv\n!*.pyc\n")
    (folder / "sub/.gitignore").write_text("*.log\n")
    assert paths(entries_of(folder, git)) == [
        ".gitignore",
        "keep.txt",
        "sub/.gitignore",
        "sub/keep.txt",
        "tracklayer.yaml",
        "ünï cödé.txt",
    ]


def test_modes(folder: Path, git: Git) -> None:
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("run.sh")
    found = {entry.path: entry for entry in entries_of(folder, git)}
    assert found["tracklayer.yaml"].mode == "100644"
    assert found["run.sh"].mode == "100755"
    assert found["link"].mode == "120000"
    assert found["link"].content == b"run.sh"


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside", "nothing"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, git: Git, target: str) -> None:
    (folder.parent / "outside").write_text("secret")
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(target)
    with pytest.raises(ProjectError, match=r"link is a symbolic link to .*no file of the project"):
        entries_of(folder, git)


def test_a_link_through_a_linked_folder_is_refused(folder: Path, git: Git) -> None:
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside/x").write_text("secret")
    (folder / "a").symlink_to("../outside")
    (folder / "b").symlink_to("a/x")
    with pytest.raises(ProjectError, match="symbolic link"):
        entries_of(folder, git)


def test_a_repository_inside_is_refused(folder: Path, git: Git) -> None:
    inner = folder / "lib"
    inner.mkdir()
    Git(inner / ".git").run("init", "--quiet")
    (inner / "x").write_text("x")
    with pytest.raises(ProjectError, match="lib/ is a git repository of its own"):
        entries_of(folder, git)


def test_a_large_file_is_named(folder: Path, git: Git) -> None:
    with (folder / "model.bin").open("wb") as stream:
        stream.truncate(MAX_FILE + 1)
    with pytest.raises(ProjectError, match=r"model\.bin has 50 MiB.*50 MiB at most") as error:
        entries_of(folder, git)
    assert "sources" in (error.value.hint or "")


def test_all_files_together_are_limited(folder: Path, git: Git) -> None:
    for number in range(5):
        with (folder / f"part{number}").open("wb") as stream:
            stream.truncate(45 * 1024**2)
    with pytest.raises(ProjectError, match="The project has 225 MiB; it may have 200"):
        entries_of(folder, git)
    with pytest.raises(ProjectError, match=f"{MAX_FILES + 1} files"):
        checked([entry_from(f"f{number}", b"") for number in range(MAX_FILES + 1)])


@pytest.fixture
def somebody() -> Iterator[None]:
    """A user for whom permissions hold: root, as which a container runs, can read everything."""
    if os.geteuid():
        yield
        return
    os.setresuid(NOBODY, 0, 0)  # access(2) asks for the real user
    yield
    os.setresuid(0, 0, 0)


def test_an_unreadable_file_is_named(somebody: None) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are for their owner alone
        Path(name).chmod(0o755)
        git, folder = Git(Path(name, "mirror")), Path(name, "project")
        for made in (git.folder, folder):
            made.mkdir()
        git.run("init", "--quiet", "--bare")
        (folder / "locked").write_text("x")
        (folder / "locked").chmod(0)
        (folder / "open").write_text("x")
        with pytest.raises(ProjectError, match="locked cannot be read: you lack the permission"):
            entries_of(folder, git)
        (folder / "locked").chmod(0o644)
        assert paths(entries_of(folder, git)) == ["locked", "open"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/x",
        "../x",
        "a/../x",
        "a//x",
        "./x",
        ".git/config",
        "a/.GIT/hooks",
        "a\nb",
        "a\\b",
        "a/",
    ],
)
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(ProjectError, match="is not a path"):
        checked([entry_from(path, b"")])


def test_a_file_that_grows_meanwhile_is_noticed(folder: Path, git: Git) -> None:
    (entry,) = entries_of(folder, git)
    (folder / "tracklayer.yaml").write_text("name: longer\n")
    with pytest.raises(ProjectError, match="changed while it was saved"):
        list(entry.read())
