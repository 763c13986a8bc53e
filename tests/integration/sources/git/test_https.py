"""Repositories behind TLS and a login, and their large files, from real servers on loopback."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Credential

if TYPE_CHECKING:
    from tests.integration.sources.git.conftest import (
        Get,
        GitServer,
        Read,
        Repository,
        StartServer,
    )

TOKEN = secrets.token_hex(16)
LOGIN = Credential("ann", TOKEN)


@pytest.fixture
def server(start_server: StartServer, repository: Repository) -> GitServer:
    repository.commit(a_txt="1", lib__b_txt="2")
    return start_server()


def handle(server: GitServer, *, lfs: bool = False) -> str:
    return f"git+{server.url}/repository/.git@main" + ("#lfs=true" if lfs else "")


def test_a_repository_that_everybody_may_read(server: GitServer, get: Get, read: Read) -> None:
    assert read(get(handle(server))) == {"a.txt": b"1", "lib/b.txt": b"2"}


def test_a_certificate_that_is_not_trusted(
    server: GitServer, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_SSL_CAINFO")
    with pytest.raises(SourceError, match="certificate"):
        get(handle(server))


def test_a_token_opens_it_and_is_seen_nowhere(
    server: GitServer, get: Get, read: Read, tmp_path: Path
) -> None:
    server.login = f"ann:{TOKEN}"
    server.secrets = [TOKEN]
    said: list[str] = []
    got = get(handle(server), LOGIN, said)
    assert read(got)["a.txt"] == b"1"
    assert any(given for _, _, given in server.seen)
    assert server.leaks == []
    assert TOKEN not in "".join(said) + str(got.manifest)
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize("credential", [None, Credential("ann", "wr0ng-token")])
def test_a_login_that_is_missing_or_wrong(
    server: GitServer, get: Get, credential: Credential | None
) -> None:
    server.login = f"ann:{TOKEN}"
    with pytest.raises(SourceError, match="Name an Airflow connection with a token") as caught:
        get(handle(server), credential)
    assert "wr0ng" not in str(caught.value)


def test_a_token_is_for_its_own_server(
    server: GitServer, start_server: StartServer, get: Get
) -> None:
    """The first server leads git to another, which asks for a login too."""
    other = start_server()
    other.login = f"ann:{TOKEN}"
    server.moved = other.url
    with pytest.raises(SourceError, match="login"):
        get(handle(server), LOGIN)
    assert other.seen
    assert not any(given for _, _, given in other.seen)


def test_a_repository_that_has_moved(
    server: GitServer, start_server: StartServer, get: Get, read: Read
) -> None:
    server.moved = start_server().url
    assert read(get(handle(server))) == {"a.txt": b"1", "lib/b.txt": b"2"}
    server.moved = server.url
    with pytest.raises(SourceError, match="redirects"):
        get(handle(server) + "#subdirectory=lib")


def test_the_web_does_not_lead_git_into_a_network(
    server: GitServer, start_server: StartServer, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public server, which is this one for git, sends it to one of this machine's."""
    public, port = "public.example.org", server.url.rpartition(":")[2]
    other = start_server()
    server.moved = other.url
    for name, value in {
        "COUNT": "1",
        "KEY_0": "http.curloptResolve",
        "VALUE_0": f"{public}:{port}:127.0.0.1",
    }.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    look_up = socket.getaddrinfo
    answers = ["127.0.0.1"]  # when it is connected to; when it is looked at:

    def resolve(host: Any, *rest: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == public:
            host = answers.pop() if answers else "8.8.8.8"
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(SourceError, match=f"redirects to the private address {other.url}"):
        get(f"git+https://{public}:{port}/repository/.git@main")
    assert server.seen
    assert other.seen == []


@pytest.fixture
def own_helper(trusted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person has set git up to know the login."""
    (tmp_path / "helper").write_text(f"username=ann\npassword={TOKEN}\n")
    (tmp_path / "gitconfig").write_text(f'[credential]\n helper = "!cat {tmp_path}/helper #"\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


@pytest.mark.usefixtures("own_helper")
def test_the_login_that_git_knows_itself(
    server: GitServer, repository: Repository, get: Get, read: Read
) -> None:
    server.login = f"ann:{TOKEN}"
    repository.commit(m_bin=server.keep(b"many bytes"))
    assert read(get(handle(server, lfs=True)))["m.bin"] == b"many bytes"
    with pytest.raises(SourceError, match="Authentication failed"):
        get(handle(server) + "#subdirectory=lib", Credential("ann", "wr0ng-token"))


def test_large_files(
    server: GitServer, repository: Repository, get: Get, read: Read, tmp_path: Path
) -> None:
    """Also one that is fetched in parts, and the same content twice."""
    server.login = f"ann:{TOKEN}"
    server.secrets = [TOKEN, "secret-ticket"]
    large, small = os.urandom(6_000_000), os.urandom(1000)
    repository.commit(
        m_bin=server.keep(large), lib__m_bin=server.keep(small), copy_bin=server.keep(small)
    )
    said: list[str] = []
    pointers = read(get(handle(server), LOGIN, said))
    assert pointers["m.bin"].startswith(b"version https://git-lfs")
    assert any("3 large files" in line for line in said)
    files = read(get(handle(server, lfs=True), LOGIN, said))
    assert (files["m.bin"], files["lib/m.bin"], files["copy.bin"]) == (large, small, small)
    assert files["a.txt"] == b"1"
    assert server.leaks == []
    assert TOKEN not in "".join(said)
    assert "secret-ticket" not in "".join(said)


def test_many_large_files_are_asked_for_in_pages(
    server: GitServer, repository: Repository, get: Get
) -> None:
    for number in range(130):
        name = repository.path / f"{number}.bin"
        name.write_text(server.keep(b"content %d" % number))
    repository.commit()
    got = get(handle(server, lfs=True))
    assert sum(file.path.endswith(".bin") for file in got.manifest.files) == 130
    assert sum(path.endswith("/objects/batch") for _, path, _ in server.seen) == 2


def test_addresses_that_are_too_old_are_asked_for_again(
    server: GitServer, repository: Repository, get: Get, read: Read
) -> None:
    server.term = 1
    repository.commit(m_bin=server.keep(b"many bytes"))
    assert read(get(handle(server, lfs=True)))["m.bin"] == b"many bytes"
    assert sum(path.endswith("/objects/batch") for _, path, _ in server.seen) == 2


def test_a_busy_server_is_asked_again(
    server: GitServer, repository: Repository, get: Get, read: Read
) -> None:
    server.busy = 1
    repository.commit(m_bin=server.keep(b"many bytes"))
    assert read(get(handle(server, lfs=True)))["m.bin"] == b"many bytes"


def test_large_files_that_are_wrong_or_missing(
    server: GitServer, repository: Repository, get: Get
) -> None:
    repository.commit(m_bin=server.keep(b"many bytes"))
    [oid] = server.large
    server.large[oid] = b"manu bytes"
    with pytest.raises(SourceError, match=oid):
        get(handle(server, lfs=True))
    server.large.clear()
    with pytest.raises(SourceError, match=r"m\.bin .*Object does not exist[\s\S]*git lfs push"):
        get(handle(server, lfs=True))


def test_a_server_without_large_files(server: GitServer, repository: Repository, get: Get) -> None:
    repository.commit(m_bin=server.keep(b"many bytes"))
    server.speaks_lfs = False
    with pytest.raises(SourceError, match=r"info/lfs/objects/batch answered 404"):
        get(handle(server, lfs=True))


def test_large_files_are_fetched_by_tls_alone(
    server: GitServer, repository: Repository, get: Get
) -> None:
    repository.commit(m_bin=server.keep(b"many bytes"))
    server.elsewhere = "http://8.8.8.8"
    with pytest.raises(SourceError, match="must begin with https"):
        get(handle(server, lfs=True))
