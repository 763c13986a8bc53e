"""What is billed is what was asked, over stops and kills."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tracklayer.access import Keys
from tracklayer.gateway import Route
from tracklayer.gateway.usage import used

LARGE = 30_000_000
CHUNKED = b"HTTP/1.1 200 OK\r\nA: b, c\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "whole": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "none": b"HTTP/1.1 204 No Content\r\n\r\n",
    "same": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\n\r\n",
    "chunks": CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
    "many": CHUNKED + b"3e8\r\n%b\r\n" % bytes(1000) * 2000 + b"0\r\n\r\n",
    "large": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE),
    "dies": b"",
}


class Answers(StreamRequestHandler):
    """Answers a path with just these bytes, and closes."""

    def handle(self) -> None:
        path = self.rfile.readline().decode().split(" ")[1]
        while self.rfile.readline().strip():
            pass
        self.wfile.write(ANSWERS[path.strip("/")])


class Server(ThreadingUnixStreamServer):
    """One whose callers may leave without a word about it."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Path]:
    with Server(str(tmp_path / "answers.sock"), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "answers.sock"
        server.shutdown()
        thread.join()


def test_the_sum_is_what_was_asked(gateway: Any, echo: Any, tmp_path: Path) -> None:
    _, key = Keys(tmp_path / "state" / "keys.json").create("alice")
    gate, servers = gateway(), {1: echo(), 2: echo()}
    versions = {number: [server.path] for number, server in servers.items()}
    gate.client.route("digits", Route(versions=versions, weights={1: 3, 2: 1}))
    sent = 0

    def load(headers: dict[str, str]) -> int:
        with httpx.Client() as client:
            return sum(
                len(client.post(f"{gate.url}/digits/x", content=b"12345", headers=headers).content)
                for _ in range(200)
            )

    with ThreadPoolExecutor(2) as pool:
        sent = sum(pool.map(load, ({}, {"X-API-Key": key})))
    gate.process.send_signal(signal.SIGTERM)  # at once: what was counted is not lost
    assert gate.process.wait(10) == 0
    gate = gateway()
    servers[1].status = servers[2].status = 500
    httpx.get(f"{gate.url}/digits@2/x")
    time.sleep(1)
    gate.process.kill()
    gate.process.wait()
    file = tmp_path / "state" / "usage.db"
    assert file.stat().st_mode & 0o77 == 0
    rows = used(file)
    assert {row.caller for row in rows} == {"alice", "anonymous"}
    assert sum(row.requests for row in rows if row.caller == "alice") == 200
    assert sum(row.requests for row in rows) == 401
    by_version = {v: sum(row.requests for row in rows if row.version == v) for v in (1, 2)}
    assert by_version == {1: 300, 2: 101}
    assert sum(row.errors for row in rows) == 1
    assert sum(row.bytes_in for row in rows) == 400 * 5
    assert sum(row.bytes_out for row in rows) > sent
    assert 0 < sum(row.seconds for row in rows) < 30
    assert used(file, project="other") == used(file, caller="bob") == []
    assert sum(row.requests for row in used(file, project="digits", caller="alice")) == 200
    gateway()
    assert used(file) == rows


def test_what_cannot_be_written_is_written_later(gateway: Any, echo: Any, tmp_path: Path) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("digits", 1, [one.path])
    file = tmp_path / "state" / "usage.db"
    aside = tmp_path / "aside"
    file.rename(aside)
    for name in ("usage.db-wal", "usage.db-shm"):
        (file.parent / name).unlink(missing_ok=True)
    file.mkdir()
    for _ in range(3):
        assert httpx.get(f"{gate.url}/digits/x").status_code == 200
    time.sleep(1)
    file.rmdir()
    aside.rename(file)
    httpx.get(f"{gate.url}/digits/x")
    gate.process.terminate()
    _, said = gate.process.communicate(timeout=10)
    assert said.count("cannot be used") == 1
    assert [(row.requests, row.caller) for row in used(file)] == [(4, "anonymous")]


def test_bytes_are_those_of_the_bodies_as_far_as_they_went(
    gateway: Any, answers: Path, tmp_path: Path
) -> None:
    gate = gateway()
    gate.client.switch("digits", 1, [answers])
    where = urlsplit(gate.url)
    billed = {}

    def ask(path: str, method: str = "GET") -> None:
        httpx.request(method, f"{gate.url}/digits/{path}")

    def leave(request: bytes) -> None:
        with socket.create_connection((str(where.hostname), where.port or 0)) as caller:
            caller.sendall(request)
            time.sleep(0.2)

    before = (0, 0, 0)
    for name, asking in {
        **{path: lambda path=path: ask(path) for path in ANSWERS if path != "large"},
        "head": lambda: ask("same", "HEAD"),
        "left": lambda: leave(b"GET /digits/large HTTP/1.1\r\nHost: g\r\n\r\n"),
        "cut": lambda: leave(b"POST /digits/ HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nabc"),
    }.items():
        asking()
        gate.client.stats("digits")  # all that is over is counted
        time.sleep(0.7)  # and written
        [row] = used(tmp_path / "state" / "usage.db")
        now = (row.requests, row.bytes_in, row.bytes_out)
        billed[name] = tuple(after - earlier for after, earlier in zip(now, before, strict=True))
        before = now
    assert 0 < billed.pop("left")[2] < LARGE / 2
    nothing = (1, 0, 0)
    assert billed == {
        "whole": (1, 0, 5),
        "chunks": (1, 0, 6),
        "many": (1, 0, 2_000_000),
        **dict.fromkeys(("none", "same", "dies", "head"), nothing),
        "cut": (0, 0, 0),
    }
    assert gate.client.stats("digits")[1].client_errors == 1
