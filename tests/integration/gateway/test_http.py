"""HTTP as it is on the wire: what odd, slow, greedy and hostile callers get."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

GET = b"GET /digits/%d HTTP/1.1\r\nHost: g\r\n\r\n"
HOST = b" HTTP/1.1\r\nHost: g\r\n"
Talk = Callable[..., bytes]


@pytest.fixture
def gate(gateway: Any, echo: Any) -> Any:
    gate = gateway("--max-body", 1 << 20, "--timeout", 1)
    gate.client.switch("digits", 7, [echo().path])
    return gate


@pytest.fixture
def connect(gate: Any) -> Callable[[], socket.socket]:
    where = urlsplit(gate.url)
    return lambda: socket.create_connection((str(where.hostname), where.port or 0), timeout=8)


@pytest.fixture
def talk(connect: Callable[[], socket.socket]) -> Talk:
    """Sends pieces, and reads until the gateway closes or is silent."""

    def begin(*pieces: bytes, pause: float = 0.02) -> bytes:
        answer = b""
        with connect() as connection:
            for piece in pieces:
                with contextlib.suppress(OSError):
                    connection.sendall(piece)
                time.sleep(pause)
            with contextlib.suppress(OSError):
                while chunk := connection.recv(1 << 16):
                    answer += chunk
                    connection.settimeout(0.15)
        return answer

    return begin


def bodies(answer: bytes) -> list[Any]:
    """The JSON documents of several answers. HAProxy cannot be told what to say to something that
    it cannot read at all: its own words stand for an error."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        said = rest[:length]
        if b"html" in fields.get(b"content-type", b""):
            found.append({"error": said.decode()})
        else:
            found.append(json.loads(said or b"null"))
        answer = rest[length:]
    return found


def test_requests_sent_ahead_are_answered_in_their_order(talk: Talk) -> None:
    paths = [shown["path"] for shown in bodies(talk(b"".join(GET % n for n in range(50))))]
    assert paths == [f"/{n}" for n in range(50)]
    mixed = b"GET /nobody" + HOST + b"\r\n" + GET % 1
    mixed += b"POST /digits/p" + HOST + b"Content-Length: 3\r\n\r\nabc" + GET % 2
    first, *rest = bodies(talk(mixed))
    assert "no project" in first["error"]
    assert [(shown["path"], shown["bytes"]) for shown in rest] == [("/1", 0), ("/p", 3), ("/2", 0)]
    chunked = b"POST /digits/c" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert [shown["bytes"] for shown in bodies(talk(chunked * 20))] == [3] * 20


def test_what_is_wrong_is_said_after_the_answers_to_what_was_right(talk: Talk) -> None:
    first, last = bodies(talk(GET % 1 + b"GET /digits/x HTTP/1.1\r\nHo st: g\r\n\r\n" + GET % 2))
    assert first["path"] == "/1"
    assert last["error"]


def test_a_byte_at_a_time_is_a_request(talk: Talk) -> None:
    request = b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    pieces = [request[index : index + 1] for index in range(len(request))]
    answer = talk(*pieces, pause=0.0005)
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def test_old_clients_get_what_they_understand(talk: Talk) -> None:
    answer = talk(b"GET /digits/x HTTP/1.0\r\n\r\n")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    answer = talk(b"GET /digits/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
    assert answer.lower().count(b"\r\nconnection: keep-alive\r\n") == 2
    answer = talk(b"GET /digits/x" + HOST + b"Connection: close\r\n\r\n" + GET % 2)
    assert answer.count(b"HTTP/1.1 200") == 1


def test_head_has_a_length_and_no_body(talk: Talk) -> None:
    for path in (b"/digits/x", b"/", b"/nobody", b"/-/health"):
        answer = talk(b"HEAD " + path + HOST + b"\r\n" + GET % 5)
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert b"content-length: 0" not in head.lower()
        assert b"content-length: " in head.lower()
        assert rest.startswith(b"HTTP/1.1 200"), (path, answer)


def test_a_body_is_asked_for_before_it_is_sent(connect: Any) -> None:
    for length in (3, 100_000):
        with connect() as connection:
            head = b"POST /digits/x" + HOST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % length)
            assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"x" * length)
            [shown] = bodies(connection.recv(1 << 16))
            assert shown["bytes"] == length
            assert "expect" not in dict(shown["headers"])
    refused = {
        b"POST /digits/x"
        + HOST
        + b"Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n": b"413",
        b"POST /nobody" + HOST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n": b"404",
        b"POST /digits/x" + HOST + b"Expect: cake\r\nContent-Length: 9\r\n\r\n": b"417",
    }
    for request, status in refused.items():
        with connect() as connection:
            connection.sendall(request)
            assert connection.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_an_offer_of_another_protocol_is_not_taken(talk: Talk) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    post = b"POST /digits/p" + HOST + offer + b"Content-Length: 3\r\n\r\nabc"
    put = (
        b"PUT /digits/p" + HOST + offer + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    get = b"GET /digits/p" + HOST + offer + b"\r\n"
    for request, size in ((post, 3), (put, 3), (get, 0)):
        first, second = bodies(talk(request + GET % 2))
        assert (first["path"], first["bytes"], second["path"]) == ("/p", size, "/2")
        assert not {"upgrade", "http2-settings", "connection"} & dict(first["headers"]).keys()
        [only] = bodies(talk(request[:-2], request[-2:]))
        assert (only["path"], only["bytes"]) == ("/p", size)


def test_http_2_is_not_spoken_unasked(talk: Talk) -> None:
    answer = talk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04" + bytes(5))
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_as_many_fields_as_there_may_be(talk: Talk) -> None:
    answer = talk(b"GET /digits/x" + HOST + b"A: b\r\n" * 199 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


ALIKE = {431: "400|431", 501: "422|501", 505: "400|505"}
"""HAProxy has statuses of its own for what it cannot take."""

WRONG = [
    (b"GET /digits/x HTTP/1.1\r\n\r\n", 400),
    (b"GET /digits/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /digits/x" + HOST + b"A: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    (b"GET /digits/" + b"a" * 70_000 + HOST + b"\r\n", 431),
    (b"GET /digits/x" + HOST + b"A: b\r\n" * 300 + b"\r\n", 431),
    (b"GET /digits/x" + HOST + b"A: b\r\n" * 200 + b"\r\n", 431),
    (b"GET /digits/x" + HOST + b"A: " + b"a" * 300_000, 431),
    (b"GET /digits/x" + HOST + b"A: b\rc: d\r\n\r\n", 400),
    (b"GET /digits/x\r\n\r\n", 505),
    (b"GET /digits/x HTTP/2.0\r\nHost: g\r\n\r\n", 505),
    (b"GET /digits/x HTTP/1.2\r\nHost: g\r\n\r\n", 400),
    (b"BREW /digits/x" + HOST + b"\r\n", 400),
    (b"TRACE /digits/x" + HOST + b"\r\n", 400),
    (b"OPTIONS *" + HOST + b"\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZ\r\n", 400),
    (b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
    (b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
    (
        b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
        400,
    ),
    (b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    (b"POST /digits/x" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 400),
    (b"POST /digits/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /digits/x" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    (b"POST /digits/x" + HOST + b"Content-Length: 9999999\r\n\r\n", 413),
    (b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 90_000, 431),
    (
        b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"a" * 90_000,
        431,
    ),
]


MENDED = [
    (b"GET /digits/x" + HOST + b"A: b\x00c\r\n\r\n", 400),
    (b"GET /digits/x" + HOST + b"A: b\x01c\r\n\r\n", 400),
    (b"GET /digits/x" + HOST + b"Host: g\r\n\r\n", 400),
    (b"GET /digits/x HTTP/1.1\nHost: g\n\n", 400),
    (b"POST /digits/x" + HOST + b"Content-Length: 1,1\r\n\r\nx", 400),
    (
        b"POST /digits/x"
        + HOST
        + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (b"GET /digits/x" + HOST + b"A: b\r\n\tc: d\r\n\r\n", 400),
]
"""HAProxy makes something unambiguous of these, as RFC 9112 lets it, and passes that on. Control
characters it leaves to the model server, which refuses them."""


def test_what_is_not_right_is_refused(talk: Talk, proxy: str) -> None:
    for request, status in WRONG + (MENDED if proxy == "embedded" else []):
        answer = talk(request)
        expected = f"HTTP/1.1 ({ALIKE.get(status, status)}) ".encode()
        assert re.match(expected, answer), (request[:200], answer)
        if proxy == "embedded":  # HAProxy goes on where it knows the end of what it refused
            assert b"\r\nConnection: close\r\n" in answer
        assert len(bodies(answer)) == 1, (request[:200], answer)
        assert bodies(answer)[0]["error"]
        assert talk(GET % 1 + GET % 2).count(b"HTTP/1.1 200") == 2


def test_nothing_of_a_trailer_is_passed_on(talk: Talk) -> None:
    chunked = b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    answer = talk(chunked + b"X-Api-Key: a\r\nX-Late: b\r\n\r\n" + GET % 3)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"x-late" not in answer


def test_who_is_slow_is_given_up(connect: Any, gate: Any) -> None:
    waiting = []
    for beginning in (
        b"POST /digits/x" + HOST + b"Content-Length: 10\r\n\r\nx",
        b"POST /digits/x" + HOST + b"Content-Length: 500000\r\n\r\nx",
        b"POST /digits/x" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        b"POST /digits/x" + HOST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    ):
        connection = connect()
        connection.sendall(beginning)
        waiting.append(connection)
    begin = time.monotonic()
    for connection in waiting:
        answer = connection.recv(1000).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (answer or connection.recv(1000)).startswith(b"HTTP/1.1 408"), answer
        connection.close()
    assert time.monotonic() - begin < 4
    assert httpx.get(f"{gate.url}/digits/x").status_code == 200


def test_a_caller_that_reads_nothing_holds_nothing_up(connect: Any, gate: Any) -> None:
    process = psutil.Process(gate.process.pid)
    httpx.get(f"{gate.url}/digits/x")
    before = process.memory_info().rss
    with connect() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.settimeout(0.5)
        request = b"GET /digits/x" + HOST + b"A: " + b"a" * 30_000 + b"\r\n\r\n"
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                greedy.sendall(request)
        assert process.memory_info().rss - before < 20 << 20
        assert httpx.get(f"{gate.url}/digits/x").status_code == 200
        deadline = time.monotonic() + 5
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                greedy.send(b"x")
                time.sleep(0.05)
        assert time.monotonic() < deadline, "it was never given up"


def test_a_caller_that_leaves_leaves_nothing_behind(connect: Any, gate: Any) -> None:
    for beginning in (
        b"",
        b"GET /dig",
        GET % 1,
        b"POST /digits/x" + HOST + b"Content-Length: 9\r\n",
    ):
        for _ in range(5):
            with connect() as connection:
                connection.sendall(beginning)
    assert gate.client.remove("digits", drain=5).drained


def test_noise_is_no_trouble(connect: Any, gate: Any) -> None:
    noise = random.Random(4)
    whole = (
        b"POST /digits/x"
        + HOST
        + b"Transfer-Encoding: chunked\r\nA: b\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    for _ in range(200):
        data = bytearray(whole * noise.randint(1, 3))
        for _ in range(noise.randint(1, 6)):
            data[noise.randrange(len(data))] = noise.randrange(256)
        with connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(OSError):
                while chunk := connection.recv(1 << 16):
                    answer += chunk
        assert not answer or answer.startswith(b"HTTP/1.1 "), (data, answer)
        assert not re.search(rb"HTTP/1.1 50[0234]", answer), (data, answer)
    assert httpx.get(f"{gate.url}/digits/x").status_code == 200
    gate.process.terminate()
    _, said = gate.process.communicate(timeout=10)
    assert said == ""


def test_a_refused_body_is_never_taken_for_a_request(talk: Talk, gate: Any) -> None:
    """What follows it may be left unanswered, or be answered as what it is."""
    body = (GET % 2) * 2000
    refused = b"POST /nobody" + HOST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    for rest in (GET % 1, b"no HTTP\r\n\r\n"):
        answer, *more = bodies(talk(refused + rest))
        assert "no project" in answer["error"]
        assert all(shown.get("path", "/1") == "/1" for shown in more)
        assert len(more) <= 1
    gate.process.terminate()
    _, said = gate.process.communicate(timeout=10)
    assert said == ""


def test_a_stop_answers_what_was_taken(gate: Any, connect: Any) -> None:
    with connect() as idle, connect() as busy:
        busy.sendall(b"POST /digits/x" + HOST + b"Content-Length: 10\r\n\r\n12345")
        time.sleep(0.3)
        gate.process.terminate()
        time.sleep(0.3)
        with pytest.raises(OSError, match="refused"):
            connect()
        busy.sendall(b"67890")
        answer = busy.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert idle.recv(10) == b""
    assert gate.process.wait(10) == 0
