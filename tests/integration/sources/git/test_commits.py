"""What is fetched of a repository: commits, tags, folders, links, large files; and what is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import SourceError, StoreError

if TYPE_CHECKING:
    from tests.integration.sources.git.conftest import Get, Read, Repository
    from tracklayer.store import Store


def test_a_branch_moves_and_a_commit_does_not(repository: Repository, get: Get, read: Read) -> None:
    one = repository.commit(a_txt="1", lib__b_txt="2")
    first = get(repository.handle("main"))
    assert (first.revision, first.cached) == (one, False)
    assert read(first) == {"a.txt": b"1", "lib/b.txt": b"2"}
    two = repository.commit(a_txt="changed")
    second = get(repository.handle("main"))
    assert (second.revision, second.cached) == (two, False)
    pinned = get(repository.handle(one))
    assert (pinned.revision, pinned.cached) == (one, True)
    assert pinned.manifest == first.manifest
    assert get(repository.handle("main")).cached


def test_a_pinned_commit_needs_no_repository(repository: Repository, get: Get) -> None:
    handle = repository.handle(repository.commit(a_txt="1"))
    get(handle)
    shutil.rmtree(repository.path)
    assert get(handle).cached


def test_tags_subdirectories_and_old_commits(repository: Repository, get: Get, read: Read) -> None:
    old = repository.commit(a_txt="1", lib__b_txt="2", lib__deep__c_txt="3")
    repository("tag", "-a", "v1", "-m", "first")
    repository("tag", "light")
    repository.commit(a_txt="2")
    for ref in ("v1", "light", old):
        got = get(repository.handle(ref) + "#subdirectory=lib")
        assert got.revision == old
        assert read(got) == {"b.txt": b"2", "deep/c.txt": b"3"}
    with pytest.raises(SourceError, match="no folder nope"):
        get(repository.handle("v1") + "#subdirectory=nope")


def test_a_ref_that_is_two_things_or_nothing(
    repository: Repository, get: Get, tmp_path: Path
) -> None:
    one = repository.commit(a_txt="1")
    repository("tag", "both")
    repository("branch", "both")
    with pytest.raises(SourceError, match="both a tag and a branch"):
        get(repository.handle("both"))
    assert get(repository.handle("refs/heads/both")).revision == one
    with pytest.raises(SourceError, match=r"no branch or tag nope[\s\S]*40 digits"):
        get(repository.handle("nope"))
    with pytest.raises(SourceError, match="no branch or tag"):
        get(repository.handle(one[:8]))
    with pytest.raises(SourceError, match=r"no commit|git fetch failed"):
        get(repository.handle("0" * 40))
    with pytest.raises(SourceError, match="does not appear to be a git repository"):
        get(f"git+file://{tmp_path}/nope@main")


def test_the_bytes_of_the_commit_whatever_the_attributes(
    repository: Repository, get: Get, read: Read
) -> None:
    (repository.path / ".git/info/attributes").write_text("* -text -ident\n")
    repository.commit(
        a_txt="$Id$\nline\n", b_txt=b"crlf\r\n", _gitattributes="* text eol=crlf ident\n"
    )
    files = read(get(repository.handle("main")))
    assert files["a.txt"] == b"$Id$\nline\n"
    assert files["b.txt"] == b"crlf\r\n"


def test_nothing_of_the_repository_runs(
    repository: Repository, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    got = get(repository.handle("main"))
    assert "a.txt" in {f.path for f in got.manifest.files}
    assert not mark.exists()


def test_submodules_are_left_out_and_said(
    repository: Repository, make_repository: type[Repository], get: Get, tmp_path: Path
) -> None:
    other = make_repository(tmp_path / "other")
    other.commit(x_txt="x")
    repository.commit(a_txt="1")
    repository("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other.path), "sub")
    repository.commit(b_txt="2")
    said: list[str] = []
    got = get(repository.handle("main"), said=said)
    assert {f.path for f in got.manifest.files} == {"a.txt", "b.txt", ".gitmodules"}
    assert any("submodules" in line for line in said)


def test_links_and_modes(repository: Repository, get: Get) -> None:
    (repository.path / "ln").symlink_to("run.sh")
    (repository.path / "run.sh").write_text("#!/bin/sh\n")
    (repository.path / "run.sh").chmod(0o755)
    repository.commit(a_txt="1")
    got = get(repository.handle("main"))
    modes = {f.path: f.executable for f in got.manifest.files}
    assert modes == {"a.txt": False, "ln": True, "run.sh": True}
    (repository.path / "out").symlink_to("/etc/hostname")
    repository.commit(a_txt="2")
    with pytest.raises((SourceError, StoreError), match="leaves the folder"):
        get(repository.handle("main"))


def test_a_server_that_gives_no_single_commit(
    repository: Repository,
    get: Get,
    read: Read,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protocol 0 serves the tips of branches only."""
    old = repository.commit(a_txt="1")
    repository.commit(a_txt="2")
    (tmp_path / "gitconfig").write_text("[protocol]\n version = 0\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    said: list[str] = []
    got = get(repository.handle(old), said=said)
    assert read(got) == {"a.txt": b"1"}
    assert any("all branches" in line for line in said)


def test_no_git(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="Install git"):
        get(f"git+file://{tmp_path}/r@main")
    assert os.environ["PATH"] == str(tmp_path)


def test_large_files_of_a_repository_on_the_disk(
    repository: Repository, get: Get, read: Read, store: Store
) -> None:
    """As git-lfs itself lays them down, if it is there; we never need it."""
    content = os.urandom(300_000)
    pointer = repository.large(content)
    repository.commit(m_bin=pointer, a_txt="1")
    said: list[str] = []
    assert read(get(repository.handle("main"), said=said)) == {
        "m.bin": pointer.encode(),
        "a.txt": b"1",
    }
    assert any("1 large file" in line and "#lfs=true" in line for line in said)
    assert read(get(repository.handle("main") + "#lfs=true")) == {"m.bin": content, "a.txt": b"1"}
    assert store.verify() == []


def test_a_large_file_that_is_missing_or_damaged(repository: Repository, get: Get) -> None:
    repository.commit(m_bin=repository.large(b"what it was"))
    [file] = (repository.path / ".git/lfs/objects").rglob("*/*/*")
    file.write_bytes(b"what it is.")
    with pytest.raises(SourceError, match=r"m\.bin: .* is damaged"):
        get(repository.handle("main") + "#lfs=true")
    file.unlink()
    with pytest.raises(SourceError, match=r"m\.bin .*no large file[\s\S]*git lfs push"):
        get(repository.handle("main") + "#lfs=true")


def test_a_pointer_with_an_extension(repository: Repository, get: Get) -> None:
    lines = repository.large(b"x").splitlines(keepends=True)
    repository.commit(m_bin="".join([lines[0], f"ext-0-own sha256:{'0' * 64}\n", *lines[1:]]))
    get(repository.handle("main"))
    with pytest.raises(SourceError, match=r"m\.bin .* extension"):
        get(repository.handle("main") + "#lfs=true")
