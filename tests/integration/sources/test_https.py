"""One file of the web: whom it is taken from, where it may lead, and what nobody gets to see."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Fetched, Remote, fetch
from tracklayer.store import Store

CONTENT = os.urandom(300_000)
HEX = hashlib.sha256(CONTENT).hexdigest()
PUBLIC, OTHER = "public.example.org", "other.example.org"

Promised = Callable[..., Remote]
Resolve = Callable[..., None]
real_getaddrinfo = socket.getaddrinfo


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """``resolve(name, address, ...)``: what a name means at each question; the last one stays."""
    known: dict[str, list[str]] = {}

    def look_up(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        if answers := known.get(host):
            host = answers.pop(0) if len(answers) > 1 else answers[0]
        return real_getaddrinfo(host, port, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return lambda name, *addresses: known.update({name: list(addresses)})


class Proxy:
    """A proxy for CONNECT, to which every host is this machine."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(connection,), daemon=True).start()

    def _tunnel(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        self.asked.append(head)
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        there = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for one, other in ((connection, there), (there, connection)):
            threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            other.close()

    def close(self) -> None:
        with suppress(OSError):  # a second time
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The environment names this proxy for https."""
    made = Proxy()
    monkeypatch.setenv("https_proxy", f"http://somebody:s3cret@127.0.0.1:{made.port}")
    monkeypatch.setenv("no_proxy", "")
    yield made
    made.close()


@pytest.fixture
def public(
    start_server: Callable[[ssl.SSLContext], Any],
    tls: ssl.SSLContext,
    authority: Path,
    monkeypatch: pytest.MonkeyPatch,
    resolve: Resolve,
    proxy: Proxy,
) -> Any:
    """A server with a public name and a certificate that is trusted, behind the proxy."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    resolve(PUBLIC, "8.8.8.8")
    resolve(OTHER, "8.8.4.4")
    server = start_server(tls)
    server.files["/f"] = CONTENT
    return server


def test_fetched_once_and_then_from_the_store(
    hostile_server: Any, store: Store, tmp_path: Path
) -> None:
    path = "/data/train%20set.bin"
    hostile_server.files[path] = CONTENT
    handle = f"{hostile_server.url(path)}?token=hunter2#sha256={HEX}"

    def get() -> Fetched:
        return fetch(handle, project=tmp_path, store=store, allow=frozenset({"unknown"}))

    first = get()
    assert (first.revision, first.cached) == (f"sha256:{HEX}", False)
    assert [(f.path, f.digest) for f in first.manifest.files] == [
        ("train_set.bin", f"sha256:{HEX}")
    ]
    hostile_server.close()
    assert get() == first._replace(cached=True)
    assert len(hostile_server.requests) == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_server_is_trusted_by_its_certificate(
    start_server: Callable[[ssl.SSLContext], Any],
    tls: ssl.SSLContext,
    authority: Path,
    engine: Any,
    promised: Promised,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    server = start_server(tls)
    server.files["/f"] = CONTENT
    remote = promised("f", server.url("/f"), CONTENT)
    with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        engine.fetch(remote)
    assert "SSL_CERT_FILE" in str(caught.value)
    assert engine.said[:-1] == []  # no try could mend it
    monkeypatch.setenv(variable, str(authority))
    assert engine.fetch(remote) == {"f": CONTENT}
    assert len(server.requests) == 1
    wrong_name = replace(remote, url=server.url("/f", host="localhost"))
    with pytest.raises(SourceError, match="certificate is not trusted"):
        engine.fetch(wrong_name)
    monkeypatch.setenv(variable, str(authority.with_name("nothing.pem")))
    with pytest.raises(SourceError, match=f"{variable} names"):
        engine.fetch(remote)


def test_a_proxy_of_the_environment(
    public: Any, proxy: Proxy, engine: Any, promised: Promised, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = promised("f", public.url("/f", host=PUBLIC), CONTENT)
    assert engine.fetch(remote) == {"f": CONTENT}
    assert proxy.asked[0].startswith(f"CONNECT {PUBLIC}:{public.port} ".encode())
    assert b"Proxy-Authorization: Basic c29tZWJvZHk6czNjcmV0" in proxy.asked[0].replace(
        b"proxy-authorization", b"Proxy-Authorization"
    ).replace(b"basic", b"Basic")
    assert all("proxy-authorization" not in asked.headers for asked in public.requests)
    monkeypatch.setenv("no_proxy", PUBLIC)
    engine.limits = replace(engine.limits, connect=0.2, tries=1)
    with pytest.raises(SourceError, match="could not be fetched"):
        engine.fetch(remote)
    assert len(proxy.asked) == 1


def test_a_proxy_that_is_not_there(
    public: Any, proxy: Proxy, engine: Any, promised: Promised
) -> None:
    proxy.close()
    with pytest.raises(SourceError, match="could not be fetched") as caught:
        engine.fetch(promised("f", public.url("/f", host=PUBLIC), CONTENT))
    assert "s3cret" not in str(caught.value) + "".join(engine.said)


def test_redirects_within_a_server(hostile_server: Any, engine: Any, promised: Promised) -> None:
    hostile_server.files["/there"] = CONTENT
    hostile_server.behaviour = lambda exchange, _number: (
        exchange.answer(302, b"over there", Location="there?x=1")
        if exchange.path == "/f"
        else exchange.good()
    )
    remote = replace(
        promised("f", hostile_server.url("/f"), CONTENT),
        headers={"Authorization": "Bearer hunter2"},
    )
    assert engine.fetch(remote) == {"f": CONTENT}
    assert [asked.path for asked in hostile_server.requests] == ["/f", "/there?x=1"]
    assert hostile_server.requests[1].headers["authorization"] == "Bearer hunter2"


def test_a_redirect_is_asked_for_once(hostile_server: Any, engine: Any, promised: Promised) -> None:
    """All parts come from where the first one was; when that address expires, a new one is had."""
    content = os.urandom(20 << 20)
    hostile_server.files["/signed/1"] = hostile_server.files["/signed/2"] = content
    issued = [0]

    def behave(exchange: Any, number: int) -> None:
        if exchange.path == "/f":
            issued[0] += 1
            exchange.answer(302, Location=f"/signed/{1 if number == 1 else 2}")
        elif exchange.path == "/signed/1" and number > 3:
            exchange.answer(403)
        else:
            exchange.good()

    hostile_server.behaviour = behave
    assert engine.fetch(promised("f", hostile_server.url("/f"), content)) == {"f": content}
    assert 2 <= issued[0] < sum(a.path.startswith("/signed") for a in hostile_server.requests)


def test_redirects_without_end(hostile_server: Any, engine: Any, promised: Promised) -> None:
    hostile_server.behaviour = lambda exchange, _number: exchange.answer(302, Location="/round")
    with pytest.raises(SourceError, match="redirects more than 5 times"):
        engine.fetch(promised("f", hostile_server.url("/f"), CONTENT))
    assert len(hostile_server.requests) == 6


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "http://example.org/x", "//10.0.0.1/x", "https://[::1/x"]
)
def test_redirects_out_of_the_web(
    hostile_server: Any, engine: Any, promised: Promised, address: str
) -> None:
    hostile_server.behaviour = lambda exchange, _number: exchange.answer(302, Location=address)
    with pytest.raises(SourceError, match=r"must begin with https|not a URL"):
        engine.fetch(promised("f", hostile_server.url("/f"), CONTENT))
    assert len(hostile_server.requests) == 1


def test_another_server_is_not_shown_the_token(
    public: Any, engine: Any, promised: Promised
) -> None:
    public.behaviour = lambda exchange, _number: (
        exchange.answer(307, Location=public.url("/f?signature=1", host=OTHER))
        if exchange.headers["host"].startswith(PUBLIC)
        else exchange.good()
    )
    token = {"Authorization": "Bearer hunter2", "X-Token": "hunter2", "Cookie": "hunter2"}
    remote = replace(promised("f", public.url("/f", host=PUBLIC), CONTENT), headers=token)
    assert engine.fetch(remote) == {"f": CONTENT}
    first, second = public.requests
    assert first.headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in str(second)


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1:{port}/f",
        "http://127.0.0.1:{port}/f",
        "https://10.0.0.1/f",
        "https://[::1]:{port}/f",
        "https://[fd00::1]/f",
        "https://[::ffff:169.254.169.254]/latest",
    ],
)
def test_the_web_does_not_lead_into_a_network(
    public: Any, engine: Any, promised: Promised, address: str
) -> None:
    public.behaviour = lambda exchange, _number: exchange.answer(
        302, Location=address.format(port=public.port)
    )
    with pytest.raises(SourceError, match="redirects to the private address"):
        engine.fetch(promised("f", public.url("/f", host=PUBLIC), CONTENT))
    assert len(public.requests) == 1


def test_a_name_that_changes_its_address(
    public: Any, engine: Any, promised: Promised, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public when it was looked at, this machine when it was connected to: the peer counts."""
    monkeypatch.delenv("https_proxy")
    resolve(PUBLIC, "8.8.8.8", "127.0.0.1")
    with pytest.raises(SourceError, match=r"leads to the private address 127\.0\.0\.1"):
        engine.fetch(promised("f", public.url("/f", host=PUBLIC), CONTENT))
    assert public.requests == []
    assert engine.left() == []


def test_nobody_sees_a_secret(
    public: Any,
    proxy: Proxy,
    engine: Any,
    promised: Promised,
    caplog: pytest.LogCaptureFixture,
    store: Store,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A token in a header, a signature in an address, a proxy's password: in no error, line, log,
    representation or file, whatever the answer is."""
    caplog.set_level(logging.DEBUG)
    statuses = iter([200, 302, 401, 403, 404, 412, 416, 429, 500, 503, 0, 1])
    seen = []
    for status in statuses:

        def behave(exchange: Any, _number: int, status: int = status) -> None:
            if status == 200:
                exchange.good(b"other than promised")
            elif status == 302:
                exchange.answer(302, Location="https://10.0.0.1/f?signature=hunter2")
            elif status == 0:
                exchange.reset()
            elif status == 1:
                exchange.cut()
            else:
                exchange.answer(status)

        public.behaviour = behave
        remote = replace(
            promised("f", "", CONTENT),
            url=lambda: public.url("/f?signature=hunter2", host=PUBLIC),
            headers={"Authorization": "Bearer hunter2"},
        )
        with pytest.raises(SourceError) as caught:
            engine.fetch(remote)
        error: BaseException | None = caught.value
        while error:
            seen += [str(error), repr(error), repr(error.args)]
            error = error.__cause__ or error.__context__
        seen += [repr(remote), str(remote)]
    seen += engine.said
    seen += [record.getMessage() for record in caplog.records]
    seen += capfd.readouterr()
    assert len(caplog.records) > 20  # the libraries did log
    for text in seen:
        assert "hunter2" not in text
        assert "s3cret" not in text
    for path in store.root.rglob("*"):
        assert "hunter2" not in str(path)
        assert not path.is_file() or b"hunter2" not in path.read_bytes()
