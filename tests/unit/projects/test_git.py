from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tracklayer.errors import ProjectError
from tracklayer.projects.git import Git, GitError, redact


def test_no_git_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProjectError, match=r"`git` was not found\.\n  Install it: `apt install"):
        Git(tmp_path).run("version")


def test_a_failure_has_gits_own_words(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="git rev-parse failed: fatal: not a git repository"):
        Git(tmp_path / "none").run("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:secret@host/r.git", "https://***@host/r.git"),
        ("fatal: 'https://token@host/r.git'", "fatal: 'https://***@host/r.git'"),
        ("https://host/r.git?a=b@c", "https://host/r.git?a=b@c"),
        ("git@host:r.git", "git@host:r.git"),
    ],
)
def test_redact(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_a_surrounding_git_does_not_leak_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook, where git names its own repository in the environment."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    folder = tmp_path / "own"
    folder.mkdir()
    Git(folder).run("init", "--quiet", "--bare")
    assert (folder / "HEAD").is_file()
    assert (folder / "objects").is_dir()
    assert not (tmp_path / "elsewhere").exists()


def test_an_error_while_feeding_ends_the_process(tmp_path: Path) -> None:
    git = Git(tmp_path)
    git.run("init", "--quiet", "--bare")

    def broken() -> Iterator[bytes]:
        yield b"reset refs/heads/main\n"
        raise ProjectError("the disk is gone")

    with pytest.raises(ProjectError, match="the disk is gone"):
        git.run("fast-import", "--quiet", stdin=broken())
    assert not (tmp_path / "refs/heads/main").exists()


def test_a_process_that_ends_early_is_reported(tmp_path: Path) -> None:
    git = Git(tmp_path)
    git.run("init", "--quiet", "--bare")
    with pytest.raises(GitError, match="nonsense"):
        git.run("fast-import", "--quiet", stdin=iter([b"nonsense\n"] * 100_000))
