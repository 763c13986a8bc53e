"""git sources against real repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tracklayer.errors import SourceError, StoreError
from tracklayer.sources import fetch
from tracklayer.store import Store


class Repository:
    """A repository with a work tree of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self("init", "-q", "-b", "main")

    def __call__(self, *arguments: str) -> str:
        who = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "tag.gpgSign=false"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, **files: str | bytes) -> str:
        for name, content in files.items():
            path = self.path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self("add", "-A")
        self("commit", "-q", "-m", "change")
        return self("rev-parse", "HEAD")

    def handle(self, ref: str) -> str:
        return f"git+file://{self.path}@{ref}"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def content(store: Store, digest: str, into: Path) -> dict[str, bytes]:
    shutil.rmtree(into, ignore_errors=True)
    store.materialise(digest, into)
    return {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()}


def test_a_branch_moves_and_a_commit_does_not(
    repository: Repository, store: Store, tmp_path: Path
) -> None:
    one = repository.commit(a_txt="1", lib__b_txt="2")
    first = fetch(repository.handle("main"), project=tmp_path, store=store)
    assert (first.revision, first.cached) == (one, False)
    assert content(store, first.manifest.digest, tmp_path / "o") == {
        "a.txt": b"1",
        "lib/b.txt": b"2",
    }
    two = repository.commit(a_txt="changed")
    second = fetch(repository.handle("main"), project=tmp_path, store=store)
    assert (second.revision, second.cached) == (two, False)
    pinned = fetch(repository.handle(one), project=tmp_path, store=store)
    assert (pinned.revision, pinned.cached) == (one, True)
    assert pinned.manifest == first.manifest
    assert fetch(repository.handle("main"), project=tmp_path, store=store).cached


def test_a_pinned_commit_needs_no_repository(
    repository: Repository, store: Store, tmp_path: Path
) -> None:
    handle = repository.handle(repository.commit(a_txt="1"))
    fetch(handle, project=tmp_path, store=store)
    shutil.rmtree(repository.path)
    assert fetch(handle, project=tmp_path, store=store).cached


def test_tags_subdirectories_and_old_commits(
    repository: Repository, store: Store, tmp_path: Path
) -> None:
    old = repository.commit(a_txt="1", lib__b_txt="2", lib__deep__c_txt="3")
    repository("tag", "-a", "v1", "-m", "first")
    repository("tag", "light")
    repository.commit(a_txt="2")
    for ref in ("v1", "light", old):
        got = fetch(repository.handle(ref) + "#subdirectory=lib", project=tmp_path, store=store)
        assert got.revision == old
        assert content(store, got.manifest.digest, tmp_path / "o") == {
            "b.txt": b"2",
            "deep/c.txt": b"3",
        }
    with pytest.raises(SourceError, match="no folder nope"):
        fetch(repository.handle("v1") + "#subdirectory=nope", project=tmp_path, store=store)


def test_a_ref_that_is_two_things_or_nothing(
    repository: Repository, store: Store, tmp_path: Path
) -> None:
    one = repository.commit(a_txt="1")
    repository("tag", "both")
    repository("branch", "both")
    with pytest.raises(SourceError, match="both a tag and a branch"):
        fetch(repository.handle("both"), project=tmp_path, store=store)
    assert (
        fetch(repository.handle("refs/heads/both"), project=tmp_path, store=store).revision == one
    )
    with pytest.raises(SourceError, match=r"no branch or tag nope[\s\S]*40 digits"):
        fetch(repository.handle("nope"), project=tmp_path, store=store)
    with pytest.raises(SourceError, match="no branch or tag"):
        fetch(repository.handle(one[:8]), project=tmp_path, store=store)
    with pytest.raises(SourceError, match=r"no commit|git fetch failed"):
        fetch(repository.handle("0" * 40), project=tmp_path, store=store)
    with pytest.raises(SourceError, match="does not appear to be a git repository"):
        fetch(f"git+file://{tmp_path}/nope@main", project=tmp_path, store=store)


def test_the_bytes_of_the_commit_whatever_the_attributes(
    repository: Repository, store: Store, tmp_path: Path
) -> None:
    (repository.path / ".git/info/attributes").write_text("* -text -ident\n")
    repository.commit(
        a_txt="$Id$\nline\n", b_txt=b"crlf\r\n", _gitattributes="* text eol=crlf ident\n"
    )
    got = fetch(repository.handle("main"), project=tmp_path, store=store)
    files = content(store, got.manifest.digest, tmp_path / "o")
    assert files["a.txt"] == b"$Id$\nline\n"
    assert files["b.txt"] == b"crlf\r\n"


def test_nothing_of_the_repository_runs(
    repository: Repository, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {mark}\n"
    repository.commit(
        a_txt="1", _gitattributes="* filter=evil\n", hooks__post_checkout=script, _gitmodules=""
    )
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(script)
        (hooks / name).chmod(0o755)
    (tmp_path / "gitconfig").write_text(
        f'[core]\n hooksPath = {hooks}\n[filter "evil"]\n smudge = touch {mark}\n required = true\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {mark}")
    got = fetch(repository.handle("main"), project=tmp_path, store=store)
    assert "a.txt" in {f.path for f in got.manifest.files}
    assert not mark.exists()


def test_submodules_are_left_out_and_said(
    repository: Repository, store: Store, tmp_path: Path
) -> None:
    other = Repository(tmp_path / "other")
    other.commit(x_txt="x")
    repository.commit(a_txt="1")
    repository("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other.path), "sub")
    repository.commit(b_txt="2")
    said: list[str] = []
    got = fetch(repository.handle("main"), project=tmp_path, store=store, on_progress=said.append)
    assert {f.path for f in got.manifest.files} == {"a.txt", "b.txt", ".gitmodules"}
    assert any("submodules" in line for line in said)


def test_links_and_modes(repository: Repository, store: Store, tmp_path: Path) -> None:
    (repository.path / "ln").symlink_to("run.sh")
    (repository.path / "run.sh").write_text("#!/bin/sh\n")
    (repository.path / "run.sh").chmod(0o755)
    repository.commit(a_txt="1")
    got = fetch(repository.handle("main"), project=tmp_path, store=store)
    modes = {f.path: f.executable for f in got.manifest.files}
    assert modes == {"a.txt": False, "ln": True, "run.sh": True}
    (repository.path / "out").symlink_to("/etc/hostname")
    repository.commit(a_txt="2")
    with pytest.raises(StoreError, match="leaves the folder"):
        fetch(repository.handle("main"), project=tmp_path, store=store)


def test_a_server_that_gives_no_single_commit(
    repository: Repository, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol 0 serves the tips of branches only."""
    old = repository.commit(a_txt="1")
    repository.commit(a_txt="2")
    (tmp_path / "gitconfig").write_text("[protocol]\n version = 0\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    said: list[str] = []
    got = fetch(repository.handle(old), project=tmp_path, store=store, on_progress=said.append)
    assert content(store, got.manifest.digest, tmp_path / "o") == {"a.txt": b"1"}
    assert any("all branches" in line for line in said)


def test_no_git(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="Install git"):
        fetch(f"git+file://{tmp_path}/r@main", project=tmp_path, store=store)
    assert os.environ["PATH"] == str(tmp_path)
