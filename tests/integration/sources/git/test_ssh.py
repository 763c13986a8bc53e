"""Repositories and large files over ssh, from a real server on loopback."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Credential

if TYPE_CHECKING:
    from tests.conftest import FreePorts
    from tests.integration.sources.git.conftest import Get, Read, Repository, StartServer

# What the server runs for whoever logs in: it notes what all processes show, and knows LFS.
SHELL = """#!/bin/sh
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >>{folder}/shown 2>/dev/null
case "$SSH_ORIGINAL_COMMAND" in
  git-lfs-authenticate*) printf '%s\\n' "$SSH_ORIGINAL_COMMAND" >>{folder}/asked
                         cat {folder}/answer ;;
  *) exec sh -c "$SSH_ORIGINAL_COMMAND" ;;
esac
"""


@dataclass
class Sshd:
    """A server that lets one key in. ``known``: the file with its host key."""

    folder: Path
    port: int
    known: Path
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.folder / "id"

    def handle(self, repository: Path, fragment: str = "") -> str:
        return f"git+ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repository}@main{fragment}"

    def credential(self, **extra: Any) -> Credential:
        return Credential(extra={"known_hosts_file": str(self.known), **extra})

    @property
    def with_key(self) -> Credential:
        return self.credential(private_key=self.key.read_text())


def new_key(file: Path, passphrase: str = "") -> str:
    """A key pair; the public half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(file)]
    subprocess.run(command, check=True)
    return file.with_suffix(".pub").read_text().rpartition(" ")[0]


@pytest.fixture
def sshd(
    tmp_path: Path,
    free_ports: FreePorts,
    give_up: Callable[[str], Never],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Sshd]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not program or not shutil.which("ssh"):
        give_up("sshd and ssh (Debian: openssh-server, openssh-client) are not installed")
    folder, [port] = tmp_path / "sshd", free_ports(1)
    folder.mkdir()
    host, known = new_key(folder / "host"), folder / "known"
    known.write_text(f"[127.0.0.1]:{port} {host}\n")
    (folder / "shell").write_text(SHELL.format(folder=folder))
    (folder / "shell").chmod(0o755)
    (folder / "allowed").write_text(f'command="{folder}/shell" {new_key(folder / "id")}\n')
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/allowed\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    log = folder / "log"
    server = subprocess.Popen([program, "-D", "-f", folder / "config", "-E", log])
    try:
        deadline = time.monotonic() + 10
        while server.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        else:
            give_up(f"sshd does not start here: {log.read_text().strip()}")
        yield Sshd(folder, port, known)
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def path(repository: Repository) -> Path:
    repository.commit(a_txt="1", lib__b_txt="2")
    return repository.path


def test_a_key_opens_it_and_is_seen_nowhere(sshd: Sshd, path: Path, get: Get, read: Read) -> None:
    got = get(sshd.handle(path, "#subdirectory=lib"), sshd.with_key)
    assert read(got) == {"b.txt": b"2"}
    shown = (sshd.folder / "shown").read_text(errors="replace")
    assert "BatchMode=yes" in shown
    assert not any(line in shown for line in sshd.key.read_text().splitlines()[1:-1])


def test_a_key_as_a_form_field_has_it(sshd: Sshd, path: Path, get: Get) -> None:
    """On one line, with the ends of the lines written out, and none at its end."""
    text = sshd.key.read_text().strip()
    for written in (text.replace("\n", "\\n"), text.replace("\n", "\r\n")):
        assert get(sshd.handle(path), sshd.credential(private_key=written)).revision


def test_the_key_of_an_agent(
    sshd: Sshd, path: Path, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", address)
        deadline = time.monotonic() + 10
        while not Path(address).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        subprocess.run(["ssh-add", "-q", str(sshd.key)], check=True, stderr=subprocess.DEVNULL)
        assert get(sshd.handle(path), sshd.credential()).revision
    finally:
        agent.terminate()
        agent.wait()


def test_a_key_that_is_missing_or_another(sshd: Sshd, path: Path, get: Get) -> None:
    new_key(sshd.folder / "other")
    other = sshd.credential(private_key=(sshd.folder / "other").read_text())
    for credential in (sshd.credential(key_file=str(sshd.folder / "other")), other):
        with pytest.raises(SourceError, match=r"Permission denied[\s\S]*private_key in its extra"):
            get(sshd.handle(path), credential)


def test_a_key_that_cannot_be_used(sshd: Sshd, path: Path, get: Get) -> None:
    new_key(sshd.folder / "locked", "a passphrase")
    for text in ((sshd.folder / "locked").read_text(), "not a key at all"):
        with pytest.raises(SourceError, match="without a passphrase") as caught:
            get(sshd.handle(path), sshd.credential(private_key=text))
        assert "not a key at all" not in str(caught.value)


def test_a_host_that_is_unknown_or_another_than_before(sshd: Sshd, path: Path, get: Get) -> None:
    credential = sshd.with_key
    sshd.known.write_text("")
    with pytest.raises(SourceError, match=r"does not know 127\.0\.0\.1[\s\S]*known_hosts"):
        get(sshd.handle(path), credential)
    assert sshd.known.read_text() == ""
    sshd.known.write_text(f"[127.0.0.1]:{sshd.port} {new_key(sshd.folder / 'host2')}\n")
    with pytest.raises(SourceError, match=r"another one than before"):
        get(sshd.handle(path), credential)


def test_no_such_repository(sshd: Sshd, path: Path, get: Get) -> None:
    with pytest.raises(SourceError, match="does not appear to be a git repository"):
        get(sshd.handle(path.with_name("nope")), sshd.with_key)


def test_large_files(
    sshd: Sshd,
    path: Path,
    repository: Repository,
    start_server: StartServer,
    get: Get,
    read: Read,
) -> None:
    """ssh says where they are, and what opens that."""
    server = start_server()
    server.login = "ann:s3cret-token"
    answer = {
        "href": f"{server.url}/repository.git/info/lfs",
        "header": {"Authorization": "Basic YW5uOnMzY3JldC10b2tlbg=="},
        "expires_in": 600,
    }
    (sshd.folder / "answer").write_text(json.dumps(answer))
    content = os.urandom(100_000)
    repository.commit(m_bin=server.keep(content))
    got = get(sshd.handle(path, "#lfs=true"), sshd.with_key)
    assert read(got) == {"a.txt": b"1", "lib/b.txt": b"2", "m.bin": content}
    assert (sshd.folder / "asked").read_text() == f"git-lfs-authenticate {path} download\n"
    (sshd.folder / "answer").write_text("Welcome!")
    assert get(sshd.handle(path, "#subdirectory=lib&lfs=true"), sshd.with_key).revision
    repository.commit(c_txt="3")
    with pytest.raises(SourceError, match="does not answer as a server of large files"):
        get(sshd.handle(path, "#lfs=true"), sshd.with_key)
