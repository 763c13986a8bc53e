from __future__ import annotations

import contextlib
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tracklayer.errors import ServiceError
from tracklayer.gateway import Route

PATH = "/digits/v2/models/digits/infer"
REQUEST = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [10]}]}


CLIENT = httpx.Client()


def ask(url: str) -> tuple[int, float]:
    """The version that answered, by header, and what it answered."""
    answer = CLIENT.post(f"{url}{PATH}", json=REQUEST)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["x-tracklayer-version"] == body["model_version"]
    return int(body["model_version"]), body["outputs"][0]["data"][0]


def test_one_address_whatever_version_answers(gateway: Any, serve: Any, tmp_path: Path) -> None:
    gate = gateway()
    empty = httpx.get(f"{gate.url}{PATH}")
    assert (empty.status_code, empty.headers["server"]) == (404, "tracklayer")
    assert httpx.get(f"{gate.url}/-/health").json() == {"status": "ok"}
    one, two = serve(1), serve(2)
    first = gate.client.switch("digits", 1, [one.socket])
    assert (first.drained, first.in_flight, first.previous) == (True, 0, None)
    assert ask(gate.url) == (1, 11)
    second = gate.client.switch("digits", 2, [two.socket])
    assert second.previous == Route.of(1, [one.socket])
    assert ask(gate.url) == (2, 12)
    assert gate.client.routes() == {"digits": Route.of(2, [two.socket])}
    assert httpx.get(gate.url).json()["projects"] == {
        "digits": {
            "version": 2,
            "path": "/digits/",
            "versions": [2],
            "weights": {"2": 1},
            "aliases": {"champion": 2},
        }
    }
    assert httpx.get(f"{gate.url}/digits/ping").status_code == 200
    assert httpx.head(f"{gate.url}/digits/v2").headers["content-length"] != "0"
    assert stat.S_IMODE((tmp_path / "admin.sock").stat().st_mode) == 0o600
    assert psutil.Process(gate.process.pid).memory_info().rss < 120 << 20
    assert gate.client.remove("digits").previous == Route.of(2, [two.socket])
    assert gate.client.remove("digits").previous is None
    assert httpx.post(f"{gate.url}{PATH}", json=REQUEST).status_code == 404
    gate.process.send_signal(signal.SIGTERM)
    assert gate.process.wait(10) == 0
    assert not (tmp_path / "admin.sock").exists()
    assert gate.process.communicate()[1] == ""


def test_errors_of_the_server_come_through(gateway: Any, serve: Any) -> None:
    gate, one = gateway(), serve(1)
    gate.client.switch("digits", 1, [one.socket])
    answer = httpx.post(f"{gate.url}{PATH}", content=b"{")
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]
    assert answer.headers["x-tracklayer-version"] == "1"


def test_a_version_that_does_not_listen_is_not_switched_to(
    gateway: Any, serve: Any, tmp_path: Path
) -> None:
    gate, one = gateway(), serve(1)
    gate.client.switch("digits", 1, [one.socket])
    with pytest.raises(ServiceError, match=r"no server accepts connections on .*nobody"):
        gate.client.switch("digits", 2, [one.socket, tmp_path / "nobody"])
    assert ask(gate.url) == (1, 11)
    assert gate.client.routes()["digits"].version == 1


def test_a_killed_gateway_serves_the_same_routes_again(gateway: Any, serve: Any) -> None:
    gate, one = gateway(), serve(1)
    gate.client.switch("digits", 1, [one.socket])
    gate.process.kill()
    gate.process.wait()
    with pytest.raises(ServiceError, match="not there"):
        gate.client.routes()
    again = gateway()
    assert again.client.routes() == {"digits": Route.of(1, [one.socket])}
    assert ask(again.url) == (1, 11)


def test_a_damaged_routes_file_ends_the_start_and_stays(
    spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    file = tmp_path / "routes.json"
    file.write_text('{"digits": ')
    arguments = ("--port", 0, "--admin", tmp_path / "admin.sock", "--routes", file)
    arguments += ("--state", tmp_path / "state")
    process = spawn("tracklayer.gateway", *arguments)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 13
    assert "are damaged" in err
    assert "Traceback" not in err
    assert file.read_text() == '{"digits": '


def test_a_second_gateway_on_the_same_socket_is_refused(
    gateway: Any, spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    gate = gateway()
    arguments = ("--admin", tmp_path / "admin.sock", "--routes", tmp_path / "routes.json")
    arguments += ("--state", tmp_path / "state")
    process = spawn("tracklayer.gateway", "--port", 0, *arguments)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, "another process listens there" in err) == (13, True)
    assert gate.client.routes() == {}


def test_a_dead_replica_costs_no_request(gateway: Any, serve: Any) -> None:
    gate, one, two = gateway(), serve(1), serve(1)
    gate.client.switch("digits", 1, [one.socket, two.socket])
    assert [ask(gate.url) for _ in range(4)] == [(1, 11)] * 4
    one.process.kill()
    one.process.wait()
    assert [ask(gate.url) for _ in range(10)] == [(1, 11)] * 10
    two.process.kill()
    two.process.wait()
    answer = httpx.post(f"{gate.url}{PATH}", json=REQUEST)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_stopping_replica_passes_its_requests_on(gateway: Any, serve: Any) -> None:
    gate, one, two = gateway(), serve(1), serve(1)
    gate.client.switch("digits", 1, [one.socket, two.socket])
    with httpx.Client() as client:
        for number in range(120):
            if number == 30:
                one.process.send_signal(signal.SIGTERM)
            answer = client.post(f"{gate.url}{PATH}", json=REQUEST)
            assert answer.status_code == 200, (number, answer.text)
    assert one.process.wait(10) == 0


def raw(url: str, data: bytes) -> bytes:
    """All that the gateway answers to ``data``, until it closes or has nothing more to say."""
    host = urlsplit(url)
    answer = b""
    with socket.create_connection((str(host.hostname), host.port or 0), timeout=5) as connection:
        connection.sendall(data)
        with contextlib.suppress(TimeoutError):
            while chunk := connection.recv(65536):
                answer += chunk
                connection.settimeout(0.3)
    return answer


POST = b"POST /digits/invocations HTTP/1.1\r\nHost: g\r\n"
HIDDEN = b"GET /digits/ping HTTP/1.1\r\nHost: g\r\n\r\n"
AMBIGUOUS = [
    POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + HIDDEN,
    POST + b"Content-Length: +4\r\n\r\nabcd" + HIDDEN,
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    b"GET http://elsewhere/digits/ping HTTP/1.1\r\nHost: g\r\n\r\n",
    b"CONNECT digits:80 HTTP/1.1\r\nHost: g\r\n\r\n",
    b"GET /digits/ping HTTP/1.1\r\nHost: g\r\nX: a\nb\r\n\r\n",
]


def test_ambiguous_requests_are_refused_and_not_passed_on(gateway: Any, serve: Any) -> None:
    gate, one = gateway(), serve(1)
    gate.client.switch("digits", 1, [one.socket])
    assert raw(gate.url, HIDDEN).startswith(b"HTTP/1.1 200")
    for data in AMBIGUOUS:
        answer = raw(gate.url, data)
        assert re.match(rb"HTTP/1\.[01] 4", answer), (data, answer)
        assert answer.count(b"HTTP/1.") == 1, (data, answer)
    assert ask(gate.url) == (1, 11)
