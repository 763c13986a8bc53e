"""Downloads from a real server that behaves badly in every way that was seen in the wild."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tracklayer.errors import SourceError
from tracklayer.sources import Fetched, Progress, fetch
from tracklayer.sources.https import HttpsSource, Limits
from tracklayer.store import Store

CONTENT = os.urandom(300_000)
HEX = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(stall=0.5, tries=4, backoff=0.01)

Handler = BaseHTTPRequestHandler
Behaviour = Callable[[Handler, int], None]


class Server:
    """A server on a free port of loopback. ``behaviour`` gets the request and its number."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[dict[str, str]] = []
        self.behaviour: Behaviour = lambda request, _number: whole(request)
        outer = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append(dict(self.headers))
                self.close_connection = True
                outer.behaviour(self, len(outer.requests))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}/data/train%20set.bin"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def answer(request: Handler, status: int, body: bytes = b"", **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def whole(request: Handler, content: bytes = CONTENT, tag: str = '"one"') -> None:
    """A good server, which can go on in the middle."""
    wanted = request.headers.get("Range")
    if wanted and request.headers.get("If-Range") == tag:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        answer(request, 206, content[start:], Content_Range=span, ETag=tag)
    else:
        answer(request, 200, content, ETag=tag)


def broken_off(request: Handler, content: bytes = CONTENT, tag: str = '"one"') -> None:
    answer(request, 200, content[:100_000], Content_Length=str(len(content)), ETag=tag)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def download(server: Server, into: Path, *, digest: str = HEX, limits: Limits = QUICK) -> list[str]:
    into.mkdir(exist_ok=True)
    said: list[str] = []
    progress: Progress = said.append
    source = HttpsSource(server.url, digest, limits)
    source.download(f"sha256:{digest}", into, into, progress)
    assert [p.name for p in into.iterdir()] == ["train_set.bin"]
    assert (into / "train_set.bin").read_bytes() == CONTENT
    return said


def test_fetched_once_and_then_from_the_store(server: Server, store: Store, tmp_path: Path) -> None:
    def get() -> Fetched:
        return fetch(f"{server.url}?token=hunter2#sha256={HEX}", project=tmp_path, store=store)

    first = get()
    assert (first.revision, first.cached) == (f"sha256:{HEX}", False)
    assert [(f.path, f.digest) for f in first.manifest.files] == [
        ("train_set.bin", f"sha256:{HEX}")
    ]
    server.close()
    again = get()
    assert again == first._replace(cached=True)
    assert len(server.requests) == 1
    assert server.requests[0]["Accept-Encoding"] == "identity"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate that vouches for itself and for 127.0.0.1; its key is in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "authority.pem"
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(Encoding.PEM)
    )
    return file


def test_a_server_is_trusted_by_its_certificate(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    server = Server(context)
    try:
        with pytest.raises(SourceError, match=r"\(try 1\).*CERTIFICATE_VERIFY_FAILED"):
            download(server, tmp_path / "unknown")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        download(server, tmp_path / "known")
        assert len(server.requests) == 1
    finally:
        server.close()


def test_503_then_ok(server: Server, tmp_path: Path) -> None:
    server.behaviour = lambda request, number: (
        answer(request, 503 if number == 1 else 429) if number < 3 else whole(request)
    )
    said = download(server, tmp_path / "in")
    assert [line.split(": ")[-1] for line in said if "again" in line] == [
        "the server answered 503; again in 0.0 s",
        "the server answered 429; again in 0.0 s",
    ]


def test_it_waits_as_long_as_the_server_asks(server: Server, tmp_path: Path) -> None:
    server.behaviour = lambda request, number: (
        answer(request, 429, Retry_After="1") if number == 1 else whole(request)
    )
    begin = time.monotonic()
    download(server, tmp_path / "in")
    assert time.monotonic() - begin >= 1


def test_a_truncated_body_is_continued(server: Server, tmp_path: Path) -> None:
    server.behaviour = lambda request, number: (
        broken_off(request) if number == 1 else whole(request)
    )
    download(server, tmp_path / "in")
    second = server.requests[1]
    assert (second["Range"], second["If-Range"]) == ("bytes=100000-", '"one"')


def test_a_file_that_changed_meanwhile_starts_over(server: Server, tmp_path: Path) -> None:
    server.behaviour = lambda request, number: (
        broken_off(request, os.urandom(300_000), '"old"') if number == 1 else whole(request)
    )
    download(server, tmp_path / "in")
    assert server.requests[1]["If-Range"] == '"old"'


def test_a_server_that_resumes_into_something_else(server: Server, tmp_path: Path) -> None:
    """The tag did not change, the content did: only the digest can tell."""
    server.behaviour = lambda request, number: (
        broken_off(request, os.urandom(300_000)) if number == 1 else whole(request)
    )
    said = download(server, tmp_path / "in")
    assert any("wrong digest after a resumed download" in line for line in said)
    assert [("Range" in r) for r in server.requests] == [False, True, False]


def test_a_server_that_resumes_at_another_place(server: Server, tmp_path: Path) -> None:
    def behave(request: Handler, number: int) -> None:
        if number == 1:
            broken_off(request)
        elif number == 2:
            answer(request, 206, CONTENT[5:], Content_Range="bytes 5-299999/300000", ETag='"one"')
        else:
            whole(request)

    server.behaviour = behave
    download(server, tmp_path / "in")
    assert len(server.requests) == 3


def test_a_stalled_server_is_left(server: Server, tmp_path: Path) -> None:
    def behave(request: Handler, number: int) -> None:
        if number == 1:
            broken_off(request)
            request.wfile.flush()
            time.sleep(2)
        else:
            whole(request)

    server.behaviour = behave
    begin = time.monotonic()
    download(server, tmp_path / "in")
    assert time.monotonic() - begin < 1.5


def test_wrong_bytes_are_not_stored(server: Server, store: Store, tmp_path: Path) -> None:
    wrong = bytearray(CONTENT)
    wrong[7] ^= 1
    server.behaviour = lambda request, _number: whole(request, bytes(wrong))
    with pytest.raises(SourceError, match="is not what was pinned") as caught:
        fetch(f"{server.url}?token=hunter2#sha256={HEX}", project=tmp_path, store=store)
    assert "hunter2" not in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert len(server.requests) == 1
    assert list(store.root.glob("objects/*/*")) == []
    assert list(store.root.glob("tmp/*")) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_no_try_can_mend(server: Server, tmp_path: Path, status: int) -> None:
    server.behaviour = lambda request, _number: answer(request, status)
    with pytest.raises(SourceError, match=f"the server answered {status}"):
        download(server, tmp_path / "in")
    assert len(server.requests) == 1


def test_it_gives_up_in_the_end(server: Server, tmp_path: Path) -> None:
    server.behaviour = lambda request, _number: answer(request, 500)
    with pytest.raises(SourceError, match=r"could not be fetched \(try 4\).*500"):
        download(server, tmp_path / "in")
    assert len(server.requests) == 4


def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(SourceError, match="Connection refused"):
        download(server, tmp_path / "in")


def test_limits_of_size_and_time(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"larger than 0\.1 MB"):
        download(server, tmp_path / "in", limits=Limits(size=100_000))

    def without_length(request: Handler, _number: int) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT)

    server.behaviour = without_length
    with pytest.raises(SourceError, match=r"larger than 0\.1 MB"):
        download(server, tmp_path / "in", limits=Limits(size=100_000))
    download(server, tmp_path / "in")
    with pytest.raises(SourceError, match="took longer than"):
        download(server, tmp_path / "in", limits=Limits(seconds=0))
    server.behaviour = lambda request, _number: answer(
        request, 200, b"", Content_Length=str(1 << 60)
    )
    with pytest.raises(SourceError, match="free on the disk"):
        download(server, tmp_path / "in", limits=Limits(size=1 << 62))


def test_redirects(server: Server, tmp_path: Path) -> None:
    def to(address: str) -> Behaviour:
        return lambda request, number: (
            answer(request, 302, Location=address) if number == 1 else whole(request)
        )

    server.behaviour = to("/elsewhere")
    download(server, tmp_path / "in")
    assert len(server.requests) == 2
    server.requests.clear()
    server.behaviour = lambda request, _number: answer(request, 302, Location="/round")
    with pytest.raises(SourceError, match="redirects more than 5 times"):
        download(server, tmp_path / "in")
    for address in ("file:///etc/passwd", "http://example.org/x", "//10.0.0.1/x"):
        server.requests.clear()
        server.behaviour = to(address)
        with pytest.raises(SourceError, match="must begin with https"):
            download(server, tmp_path / "in")
