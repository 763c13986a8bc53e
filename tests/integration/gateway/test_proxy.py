"""The proxy in front of a backend that shows what it was sent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

GATE = threading.Event()


class Backend(BaseHTTPRequestHandler):
    """Answers with the request it got; some paths misbehave."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        if self.path == "/dies":
            return self.connection.shutdown(socket.SHUT_RDWR)
        if self.path == "/waits":
            GATE.wait(20)
        if self.path == "/breaks":
            self.send_response(200)
            self.send_header("Content-Length", str(4 << 20))
            self.end_headers()
            self.wfile.write(b"x" * (2 << 20))
            self.wfile.flush()
            return self.connection.shutdown(socket.SHUT_RDWR)
        if self.path == "/streams":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "X-Private")
            self.send_header("X-Private", "1")
            self.send_header("Set-Cookie", "a=1")
            self.send_header("Set-Cookie", "b=2")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n")
            self.wfile.flush()
            GATE.wait(20)
            self.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")
            return None
        length = int(self.headers.get("Content-Length", 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            length = 0
            while size := int(self.rfile.readline(), 16):
                length += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        else:
            self.rfile.read(length)
        headers = sorted((name.lower(), value) for name, value in self.headers.items())
        shown = {"method": self.command, "path": self.path, "headers": headers, "bytes": length}
        body = json.dumps(shown).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    do_POST = do_PUT = do_GET  # noqa: N815


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "backend.sock"
    GATE.clear()
    with ThreadingUnixStreamServer(str(path), Backend) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        GATE.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def url(gateway: Any, backend: Path) -> str:
    gate = gateway("--max-body", 3 << 20, "--timeout", 2)
    gate.client.switch("digits", 7, [backend])
    return f"{gate.url}/digits"


def test_a_request_goes_on_as_it_is_but_for_the_hop(url: str) -> None:
    shown = httpx.request(
        "PUT",
        f"{url}/a%2Fb/../c?q=%20x&q=2",
        content=b"12345",
        headers={
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
            "TE": "trailers",
            "X-Forwarded-For": "9.9.9.9",
            "Forwarded": "for=9.9.9.9",
            "X-Real-IP": "9.9.9.9",
            "X-Mine": "yes",
        },
    ).json()
    headers = dict(shown["headers"])
    assert (shown["method"], shown["bytes"]) == ("PUT", 5)
    assert shown["path"] in ("/a%2Fb/../c?q=%20x&q=2", "/c?q=%20x&q=2")
    assert headers["x-mine"] == "yes"
    assert headers["content-length"] == "5"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == urlsplit(url).netloc
    assert headers["x-forwarded-prefix"] == "/digits"
    assert headers["host"] == urlsplit(url).netloc
    assert not headers.keys() & {"x-hop", "te", "forwarded", "x-real-ip", "keep-alive"}


def test_nothing_is_added_to_a_request_without_a_body(url: str) -> None:
    shown = httpx.get(url, headers={"Accept-Encoding": "identity"}).json()
    assert shown["path"] == "/"
    names = {name for name, _ in shown["headers"]}
    assert not names & {"content-length", "transfer-encoding", "content-type"}
    assert ["accept-encoding", "identity"] in shown["headers"]


def test_an_answer_streams_as_it_comes(url: str) -> None:
    with httpx.stream("GET", f"{url}/streams") as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"first"
        GATE.set()
        assert b"".join(chunks) == b"last"
        assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert "x-private" not in answer.headers
        assert answer.headers["x-tracklayer-version"] == "7"
        assert answer.headers["server"] == "tracklayer"


def test_bodies_of_all_sizes_arrive(url: str) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        for begin in range(0, size, 100_000):
            yield b"x" * min(100_000, size - begin)

    with httpx.Client() as client:
        for size in (0, 1, 1 << 20, (1 << 20) + 1, 3 << 20):
            for content in (b"x" * size, chunks(size)):
                answer = client.post(url, content=content)
                assert (answer.status_code, answer.json()["bytes"]) == (200, size)


def test_compressed_bodies_pass_untouched(url: str) -> None:
    answer = httpx.post(url, content=b"not gzip", headers={"Content-Encoding": "gzip"})
    assert answer.json()["bytes"] == 8


def test_a_body_that_is_too_large_is_refused_by_length_and_by_count(url: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    for content in (b"x" * ((3 << 20) + 1), chunks()):
        answer = httpx.post(url, content=content)
        assert (answer.status_code, "3145728 bytes" in answer.text) == (413, True)
    assert httpx.get(url).status_code == 200


def test_a_backend_that_dies_or_hangs_is_a_gateway_error(url: str) -> None:
    answer = httpx.post(f"{url}/dies", content=b"x")
    assert (answer.status_code, "ended before" in answer.json()["error"]) == (502, True)
    answer = httpx.post(f"{url}/waits", content=b"")
    assert (answer.status_code, "too long" in answer.json()["error"]) == (504, True)


def test_an_answer_that_breaks_off_is_seen_by_the_client(url: str) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/breaks")
    assert httpx.get(url).status_code == 200


def test_a_slow_body_is_given_up(url: str) -> None:
    where = urlsplit(url)
    with socket.create_connection((str(where.hostname), where.port or 0), timeout=10) as raw:
        raw.sendall(b"POST /digits/ HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n1")
        assert raw.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_switch_waits_for_what_is_in_flight_and_says_what_remains(
    gateway: Any, backend: Path, serve: Any
) -> None:
    gate, new = gateway("--timeout", 30), serve(8)
    gate.client.switch("digits", 7, [backend])
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{gate.url}/digits/waits", timeout=30))
    )
    asking.start()
    time.sleep(0.3)
    begin = time.monotonic()
    switched = gate.client.switch("digits", 8, [new.socket], drain=0.5)
    assert 0.4 < time.monotonic() - begin < 5
    assert (switched.drained, switched.in_flight) == (False, 1)
    assert httpx.get(f"{gate.url}/digits/ping").headers["x-tracklayer-version"] == "8"
    assert not answers
    again = gate.client.switch("digits", 8, [new.socket], drain=0.1)
    assert (again.drained, again.in_flight) == (False, 1)
    GATE.set()
    asking.join()
    assert answers[0].status_code == 200
    assert answers[0].headers["x-tracklayer-version"] == "7"
    assert gate.client.switch("digits", 8, [new.socket]).drained


@pytest.mark.parametrize("way", [socket.SHUT_RDWR, socket.SHUT_WR])
def test_nobody_waits_for_callers_that_have_left(
    gateway: Any, backend: Path, serve: Any, way: int
) -> None:
    gate = gateway("--timeout", 30)
    gate.client.switch("digits", 7, [backend])
    where = urlsplit(gate.url)
    with contextlib.ExitStack() as callers:
        for _ in range(3):
            caller = socket.create_connection((str(where.hostname), where.port or 0))
            callers.enter_context(caller)
            caller.sendall(b"GET /digits/waits HTTP/1.1\r\nHost: g\r\n\r\n")
            time.sleep(0.1)
            caller.shutdown(way)
        begin = time.monotonic()
        assert gate.client.switch("digits", 8, [serve(8).socket], drain=10).drained
        assert gate.client.stats("digits")[7].codes == {"4xx": 3}
        gate.process.terminate()
        assert gate.process.wait(20) == 0
        assert time.monotonic() - begin < 8


def test_switches_of_one_project_wait_for_each_other(
    gateway: Any, backend: Path, serve: Any
) -> None:
    gate, second, third = gateway("--timeout", 30), serve(2), serve(3)
    gate.client.switch("digits", 1, [backend])
    asking = threading.Thread(target=lambda: httpx.get(f"{gate.url}/digits/waits", timeout=30))
    asking.start()
    time.sleep(0.3)
    done: list[tuple[int, int | None]] = []

    def switch(version: int, path: Path) -> None:
        before = gate.client.switch("digits", version, [path], drain=20).previous
        done.append((version, before.version if before else None))

    switching = [threading.Thread(target=switch, args=(2, second.socket))]
    switching[0].start()
    time.sleep(0.3)
    switching.append(threading.Thread(target=switch, args=(3, third.socket)))
    switching[1].start()
    time.sleep(0.3)
    assert done == []
    assert gate.client.routes()["digits"].version == 2
    GATE.set()
    for thread in (asking, *switching):
        thread.join()
    assert done == [(2, 1), (3, 2)]
    assert gate.client.routes()["digits"].version == 3
