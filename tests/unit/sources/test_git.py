"""Handles of git sources, and how the programs behind them are called."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Context, Credential
from tracklayer.sources.git import GitSource
from tracklayer.sources.git_program import Git

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("handle", "source"),
    [
        ("git+ssh://git@host/o/r.git@main", GitSource("ssh://git@host/o/r.git", "main")),
        ("git+ssh://host:2222/r.git@v1", GitSource("ssh://host:2222/r.git", "v1")),
        ("git+ssh://git@[::1]:22/r@v1", GitSource("ssh://git@[::1]:22/r", "v1")),
        ("git+ssh://host/~ann/r.git@v1", GitSource("ssh://host/~ann/r.git", "v1")),
        ("git+https://host/r.git@main#lfs=true", GitSource("https://host/r.git", "main", "", True)),
        (
            "git+https://host/r.git@main#subdirectory=a/b&lfs=true",
            GitSource("https://host/r.git", "main", "a/b", True),
        ),
        (
            "git+https://host/r.git@main#lfs=false&subdirectory=./a+b/",
            GitSource("https://host/r.git", "main", "a+b"),
        ),
        ("git+https://host/r.git@main#subdirectory=.", GitSource("https://host/r.git", "main")),
    ],
)
def test_good(handle: str, source: GitSource) -> None:
    assert GitSource.parse(handle) == source


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        ("git+ssh://git@host/r.git", "after an @"),
        ("git+ssh://git:hunter2@host/r.git@main", "user or a password"),
        ("git+ssh://-oProxyCommand=id@host/r.git@main", "user or a password"),
        ("git+ssh://-oProxyCommand=id/r.git@main", "not the address"),
        ("git+ssh://git@-oProxyCommand=id/r.git@main", "not the address"),
        ("git+ssh:///r.git@main", "not the address"),
        ("git+https://ann@host/r.git@main", "user or a password"),
        ("git+https://host/r.git@main#lfs=yes", "lfs=true"),
        ("git+https://host/r.git@main#lfs", "lfs=true"),
        ("git+https://host/r.git@main#lfs=true&x=y", "lfs=true"),
        ("git+https://host/r.git@main#subdirectory=", "subdirectory"),
        ("git+https://host/r.git@main#subdirectory=/etc", "subdirectory"),
        ("git+https://host/r.git@main#subdirectory=a/../../b", "subdirectory"),
    ],
)
def test_bad(handle: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        GitSource.parse(handle)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_commit_is_its_own_pin(tmp_path: Path) -> None:
    pinned = GitSource("https://host/r.git", COMMIT)
    assert pinned.pinned == pinned.pin(Context(tmp_path, tmp_path)) == COMMIT
    assert GitSource("https://host/r.git", "main").pinned is None


def test_keys_tell_contents_apart() -> None:
    sources = [
        GitSource("https://host/r.git", "main"),
        GitSource("https://host/r.git", "main", lfs=True),
        GitSource("https://host/r.git", "main", "a"),
        GitSource("ssh://host/r.git", "main"),
    ]
    assert len({source.key(COMMIT) for source in sources}) == len(sources)
    assert sources[0].key(COMMIT) == GitSource("https://host/r.git", COMMIT).key(COMMIT)


def git(url: str, folder: Path, credential: Credential) -> Git:
    return Git.of(url, Context(folder, folder, credential=lambda _kind: credential))


def test_a_token_is_in_a_file_for_its_own_server_alone(tmp_path: Path) -> None:
    made = git("https://host:8443/r.git", tmp_path, Credential("", "hunter2\n"))
    [file] = tmp_path.iterdir()
    assert file.read_text() == "username=git\npassword=hunter2\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "credential.helper=" in made.settings
    assert made.settings[-1].startswith("credential.https://host:8443.helper=!")
    assert "hunter2" not in repr(made)


def test_a_token_is_not_for_ssh_and_a_key_not_for_https(tmp_path: Path) -> None:
    plain = git("https://host/r.git", tmp_path, Credential(extra={"private_key": "hunter2"}))
    ssh = git("ssh://host/r.git", tmp_path, Credential("ann", "hunter2"))
    assert list(tmp_path.iterdir()) == []
    assert plain.settings == ssh.settings
    assert plain.ssh == ssh.ssh
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes"} <= set(ssh.ssh)
