"""A server of files that behaves badly in every way that was seen in the wild, and a store."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tracklayer.sources import Limits, Remote
from tracklayer.sources.engine import transfer
from tracklayer.sources.progress import Meter
from tracklayer.store import Blob, Store, keys_of

_PIECE = 1 << 18  # bytes written at once, and counted


class Asked(NamedTuple):
    """A request that came: ``headers`` by their names in lower case."""

    path: str
    headers: dict[str, str]


class Exchange:
    """One request, and the ways to answer it."""

    def __init__(self, server: HostileServer, handler: BaseHTTPRequestHandler) -> None:
        self.server, self.handler = server, handler
        self.path = handler.path.partition("?")[0]
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.content = server.files.get(self.path)

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last byte that are asked for, if not all."""
        if "range" not in self.headers or self.content is None:
            return None
        first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
        return int(first), min(int(last or len(self.content)), len(self.content) - 1)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Any answer; underscores in the names of headers are hyphens."""
        self.begin(status, **{"Content_Length": str(len(body)), **headers})
        self.write(body)

    def begin(self, status: int, **headers: str) -> None:
        """The status and the headers alone."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()

    def write(self, body: bytes | memoryview) -> None:
        """Some of the body, at the server's rate."""
        view = memoryview(body)
        begin, sent = time.monotonic(), 0
        while sent < len(view):
            piece = view[sent : sent + _PIECE]
            self.handler.wfile.write(piece)
            sent += len(piece)
            self.server.count(len(piece))
            if self.server.rate:
                time.sleep(max(0.0, begin + sent / self.server.rate - time.monotonic()))

    def good(self, content: bytes | None = None, tag: str | None = '"one"', **more: str) -> None:
        """As a good server answers: a part where one is asked for, all of it else."""
        content = self.content if content is None else content
        if content is None:
            self.answer(404)
            return
        self.content = content
        headers = {**({"ETag": tag} if tag else {}), **more}
        held = self.headers.get("if-range", tag) == tag
        if (span := self.span) and held:
            first, last = span
            if first > last:
                self.answer(416, Content_Range=f"bytes */{len(content)}")
                return
            where = f"bytes {first}-{last}/{len(content)}"
            self.begin(206, Content_Length=str(last + 1 - first), Content_Range=where, **headers)
            self.write(memoryview(content)[first : last + 1])
        else:
            self.begin(200, Content_Length=str(len(content)), **headers)
            self.write(content)

    def cut(self, share: float = 0.5, content: bytes | None = None, tag: str = '"one"') -> None:
        """Promise it as a good server does, and break off before its end."""
        content = self.content if content is None else content
        assert content is not None
        self.content = content
        first, last = self.span or (0, len(content) - 1)
        length = last + 1 - first
        headers = {"Content_Length": str(length), "ETag": tag}
        if self.span:
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
        self.begin(206 if self.span else 200, **headers)
        self.write(memoryview(content)[first : first + int(length * share)])
        self.close()

    def stall(self, seconds: float, share: float = 0.5) -> None:
        """Break off, but keep the connection."""
        handler, self.handler.close_connection = self.handler, True
        self.cut(share)
        handler.wfile.flush()
        self.server.stopped.wait(seconds)

    def reset(self) -> None:
        """End the connection by a reset (linger of zero seconds)."""
        connection = self.handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self.handler.close_connection = True

    def zipped(self) -> None:
        """Compressed, although nobody asked for that."""
        assert self.content is not None
        self.answer(200, gzip.compress(self.content), Content_Encoding="gzip", ETag='"one"')

    def close(self) -> None:
        """No other request on this connection."""
        self.handler.close_connection = True


Behaviour = Callable[[Exchange, int], None]


class HostileServer:
    """Serves ``files`` (path -> content) on loopback; ``behaviour`` gets each exchange and its
    number, from 1. ``rate``: bytes a second on a connection; ``delay``: seconds before an answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.behaviour: Behaviour = lambda exchange, _number: exchange.good()
        self.requests: list[Asked] = []
        self.served = 0
        self.rate = self.delay = 0.0
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                exchange = Exchange(outer, self)
                with outer._lock:
                    outer.requests.append(Asked(self.path, exchange.headers))
                    number = len(outer.requests)
                if outer.delay:
                    time.sleep(outer.delay)
                with suppress(ConnectionError, ssl.SSLError):  # the other side may be killed
                    outer.behaviour(exchange, number)

            def setup(self) -> None:
                super().setup()
                # What is counted is on its way, and does not wait here for a reader.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)

            def handle(self) -> None:
                with suppress(ConnectionError, ssl.SSLError, ValueError):
                    super().handle()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                """A client that refuses the certificate is none of our errors."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        self.scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """The address of a file."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def count(self, size: int) -> None:
        """So many bytes of a body were written."""
        with self._lock:
            self.served += size

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.requests.clear()
            self.served = 0

    def close(self) -> None:
        """End it; a second time does nothing."""
        if not self.stopped.is_set():
            self.stopped.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


@pytest.fixture
def start_server() -> Iterator[Callable[..., HostileServer]]:
    """Starts servers that end with the test; ``start_server(tls)`` with a certificate."""
    made: list[HostileServer] = []

    def start(tls: ssl.SSLContext | None = None) -> HostileServer:
        made.append(HostileServer(tls))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def hostile_server(start_server: Callable[..., HostileServer]) -> HostileServer:
    """A server without TLS."""
    return start_server()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate that vouches for itself, for 127.0.0.1 and some names; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    names += [x509.DNSName("public.example.org"), x509.DNSName("other.example.org")]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
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


@pytest.fixture
def tls(authority: Path) -> ssl.SSLContext:
    """A server's side of TLS with the certificate of ``authority``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    return context


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An encrypted store of this test alone."""
    return Store(tmp_path / "store", keys_of(f"file:{tmp_path}/keys/store", root=tmp_path))


QUICK = Limits(stall=0.5, tries=4, backoff=0.01, trickle=1000)


class Engine:
    """The fetch engine with a store, patience of a test, and a memory of what it said."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.said: list[str] = []
        self.limits = QUICK
        self.blobs: dict[str, Blob] = {}

    def fetch(self, *remotes: Remote) -> dict[str, bytes]:
        """Bring the files into the store; their content by path."""
        self.store.root.mkdir(exist_ok=True)
        meter = Meter("a test", self.said.append)
        self.blobs = {}

        def arrived(remote: Remote, blob: Blob) -> None:
            self.blobs[remote.path] = blob

        try:
            transfer(remotes, self.store, meter, self.limits, arrived)
        finally:
            meter.end()
        return {path: self.read(blob) for path, blob in self.blobs.items()}

    def read(self, blob: Blob) -> bytes:
        """What the store has."""
        with self.store.open(blob) as stream:
            return stream.read()

    def left(self) -> list[Path]:
        """Objects and manifests in the store."""
        kinds = ("objects/*/*", "sealed/*/*", "manifests/*")
        return [path for kind in kinds for path in self.store.root.glob(kind)]


@pytest.fixture
def engine(store: Store) -> Engine:
    """The engine with limits that a test can wait for."""
    return Engine(store)


def _promised(path: str, url: str, content: bytes, kind: str | None = "sha256") -> Remote:
    digests = {
        "sha256": lambda: hashlib.sha256(content),
        "md5": lambda: hashlib.md5(content),
        "git-sha1": lambda: hashlib.sha1(b"blob %d\0" % len(content) + content),
    }
    digest = f"{kind}:{digests[kind]().hexdigest()}" if kind else None
    return Remote(path=path, url=url, size=len(content), digest=digest)


@pytest.fixture
def promised() -> Callable[..., Remote]:
    """``promised(path, url, content, kind="sha256")``: the remote file with size and digest."""
    return _promised
