"""Real repositories, and a server that gives them by TLS, with their large files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tracklayer.sources import Credential, Fetched, fetch
from tracklayer.store import Store


class Repository:
    """A repository with a work tree of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self("init", "-q", "-b", "main")

    def __call__(self, *arguments: str) -> str:
        who = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "tag.gpgSign=false"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, **files: str | bytes) -> str:
        """Write the files (``a_txt`` is ``a.txt``, ``lib__b`` is ``lib/b``) and commit them."""
        for name, content in files.items():
            path = self.path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self("add", "-A")
        self("commit", "-q", "-m", "change")
        return self("rev-parse", "HEAD")

    def large(self, content: bytes) -> str:
        """Lay down a large file as git-lfs does; its pointer."""
        oid = hashlib.sha256(content).hexdigest()
        file = self.path / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return pointer(content)

    def handle(self, ref: str) -> str:
        return f"git+file://{self.path}@{ref}"


def pointer(content: bytes) -> str:
    """What git-lfs commits in place of a content."""
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"


def shown_by_processes(secrets: list[str]) -> list[str]:
    """What of all processes' arguments and environments holds a secret."""
    found: list[str] = []
    for file in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        with suppress(OSError):
            text = file.read_bytes().decode(errors="replace")
            found += [f"{file}: {secret}" for secret in secrets if secret in text]
    return found


class GitServer:
    """git http-backend and an LFS server below ``root``; notes who asked for what.

    ``login``: what it wants by basic authentication. ``moved``: where it sends everything.
    ``large``: the LFS objects by their oid; ``term``: seconds for which their addresses are good,
    ``elsewhere``: the server that these name. ``secrets``: what no process may show, ``leaks``: who
    did.
    """

    def __init__(self, root: Path, tls: ssl.SSLContext) -> None:
        self.root, self.login, self.moved = root, "", ""
        self.large: dict[str, bytes] = {}
        self.term, self.busy, self.speaks_lfs, self.elsewhere = 3600, 0, True, ""
        self.secrets: list[str] = []
        self.leaks: list[str] = []
        self.seen: list[tuple[str, str, str]] = []  # method, path, Authorization
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def keep(self, content: bytes) -> str:
        """Have a large file; its pointer."""
        self.large[hashlib.sha256(content).hexdigest()] = content
        return pointer(content)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(server, b"")

            def do_POST(self) -> None:
                self.answer(server, self.rfile.read(int(self.headers["Content-Length"] or 0)))

            def answer(self, server: GitServer, body: bytes) -> None:
                path, _, query = self.path.partition("?")
                given = self.headers["Authorization"] or ""
                server.seen.append((self.command, path, given))
                server.leaks += shown_by_processes(server.secrets)
                wanted = f"Basic {base64.b64encode(server.login.encode()).decode()}"
                if server.moved:
                    self.say(302, b"", Location=server.moved + self.path)
                elif path.startswith("/objects/"):
                    self.large(server, path.rpartition("/")[2], query)
                elif server.login and given != wanted:
                    self.say(401, b"", WWW_Authenticate='Basic realm="git"')
                elif path.endswith("/info/lfs/objects/batch"):
                    self.batch(server, body) if server.speaks_lfs else self.say(404, b"")
                else:
                    self.backend(server, path, query, body)

            def batch(self, server: GitServer, body: bytes) -> None:
                if server.busy:
                    server.busy -= 1
                    self.say(429, b"", Retry_After="1")
                    return
                objects = []
                for asked in json.loads(body)["objects"]:
                    oid = asked["oid"]
                    if oid in server.large:
                        where, number = server.elsewhere or server.url, len(server.seen)
                        download = {
                            "href": f"{where}/objects/{oid}?number={number}",
                            "header": {"X-Ticket": f"secret-ticket-{number}"},
                            "expires_in": server.term,
                        }
                        objects.append({**asked, "actions": {"download": download}})
                    else:
                        error = {"code": 404, "message": "Object does not exist"}
                        objects.append({**asked, "error": error})
                self.say(200, json.dumps({"objects": objects}).encode())

            def large(self, server: GitServer, oid: str, query: str) -> None:
                if self.headers["X-Ticket"] != f"secret-ticket-{query.removeprefix('number=')}":
                    self.say(403, b"")
                    return
                content, first = server.large[oid], 0
                status, headers = 200, {"Accept_Ranges": "bytes", "ETag": f'"{oid}"'}
                if wanted := self.headers["Range"]:
                    low, _, high = wanted.removeprefix("bytes=").partition("-")
                    first, last = int(low), min(int(high or len(content)), len(content) - 1)
                    headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
                    status, content = 206, content[first : last + 1]
                self.say(status, content, **headers)

            def backend(self, server: GitServer, path: str, query: str, body: bytes) -> None:
                """The Common Gateway Interface (RFC 3875), as far as git's program wants it."""
                environment = {
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(server.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers["Content-Type"] or "",
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
                    "GIT_PROTOCOL": self.headers["Git-Protocol"] or "",
                }
                command = ["git", "-c", "safe.directory=*", "http-backend"]
                done = subprocess.run(
                    command, env=environment, input=body, capture_output=True, check=True
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                lines = (line.partition(": ") for line in head.decode().split("\r\n"))
                headers = {name.replace("-", "_"): value for name, _, value in lines}
                status = int(headers.pop("Status", "200").split()[0])
                self.say(status, content, **headers)

            def say(self, status: int, content: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content_Length": str(len(content))}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """The output is the test's."""

        return Handler


@pytest.fixture
def trusted(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority, known to git and to us; and no helper of whoever runs the tests."""
    for name in ("GIT_SSL_CAINFO", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(authority))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


StartServer = Callable[[], GitServer]


@pytest.fixture
def start_server(tmp_path: Path, trusted: None, tls: ssl.SSLContext) -> Iterator[StartServer]:
    """Starts servers of what is below ``served/``."""
    servers: list[GitServer] = []

    def start() -> GitServer:
        servers.append(GitServer(tmp_path / "served", tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository that the servers give as ``repository/.git``."""
    return Repository(tmp_path / "served" / "repository")


@pytest.fixture
def make_repository() -> type[Repository]:
    return Repository


Get = Callable[..., Fetched]


@pytest.fixture
def get(store: Store, tmp_path: Path) -> Get:
    """Fetches a handle; ``said`` collects the lines for people."""

    def get(
        handle: str, credential: Credential | None = None, said: list[str] | None = None
    ) -> Fetched:
        return fetch(
            handle,
            project=tmp_path,
            store=store,
            credential=lambda _kind: credential,
            on_progress=None if said is None else said.append,
            allow=frozenset({"pickle", "remote-code", "unknown"}),
        )

    return get


Read = Callable[[Fetched], dict[str, bytes]]


@pytest.fixture
def read(store: Store, tmp_path: Path) -> Read:
    """The files of what was fetched, with their content."""

    def read(got: Fetched) -> dict[str, bytes]:
        into = tmp_path / "out" / got.manifest.digest.removeprefix("sha256:")
        store.materialise(got.manifest.digest, into)
        return {
            path.relative_to(into).as_posix(): path.read_bytes()
            for path in into.rglob("*")
            if path.is_file()
        }

    return read
