"""The engine against a server that is busy, slow, away, or talks nonsense: when it waits, tries
again and gives up."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Limits, Remote
from tracklayer.store import Draft

CHUNK = Draft.CHUNK
MIB = 1 << 20
SMALL = os.urandom(300_000)
LARGE = os.urandom(9 * MIB + 12_345)

Promised = Callable[..., Remote]


def test_503_on_one_in_fifty(hostile_server: Any, engine: Any, promised: Promised) -> None:
    hostile_server.files = {f"/{number}": os.urandom(1000) for number in range(300)}
    hostile_server.behaviour = lambda exchange, number: (
        exchange.answer(503) if number % 50 == 0 else exchange.good()
    )
    files = hostile_server.files.items()
    found = engine.fetch(*(promised(name, hostile_server.url(name), data) for name, data in files))
    assert found == hostile_server.files
    assert sum("answered 503; again in" in line for line in engine.said) == 6


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_go_better(
    hostile_server: Any, engine: Any, promised: Promised, status: int
) -> None:
    hostile_server.files["/f"] = SMALL
    hostile_server.behaviour = lambda exchange, number: (
        exchange.answer(status) if number < 4 else exchange.good()
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), SMALL)) == {"f": SMALL}
    hostile_server.forget()
    hostile_server.behaviour = lambda exchange, _number: exchange.answer(status)
    with pytest.raises(SourceError, match=rf"could not be fetched \(try 4\).*{status}"):
        engine.fetch(promised("f", hostile_server.url("/f"), SMALL))
    assert len(hostile_server.requests) == 4


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 410, 451])
def test_what_no_try_can_mend(
    hostile_server: Any, engine: Any, promised: Promised, status: int
) -> None:
    hostile_server.files["/f"] = SMALL
    hostile_server.behaviour = lambda exchange, _number: exchange.answer(status)
    with pytest.raises(SourceError, match=f"the server answered {status}"):
        engine.fetch(promised("f", hostile_server.url("/f"), SMALL))
    assert len(hostile_server.requests) == 1


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_it_waits_as_long_as_the_server_asks(
    hostile_server: Any, engine: Any, promised: Promised, kind: str
) -> None:
    """All connections wait: the server counts requests, not files."""
    hostile_server.files = {f"/{number}": os.urandom(100) for number in range(40)}
    asked: list[float] = []
    refused: list[float] = []

    def behave(exchange: Any, number: int) -> None:
        asked.append(time.monotonic())
        if number == 20:
            refused.append(time.monotonic())
            date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
            exchange.answer(429, Retry_After="1" if kind == "seconds" else date)
        else:
            time.sleep(0.01)
            exchange.good()

    hostile_server.behaviour = behave
    files = hostile_server.files.items()
    found = engine.fetch(*(promised(name, hostile_server.url(name), data) for name, data in files))
    assert found == hostile_server.files
    quiet = [moment for moment in asked if refused[0] + 0.1 < moment < refused[0] + 0.95]
    assert quiet == []
    assert time.monotonic() - refused[0] < 10


def test_a_server_that_asks_for_a_year(
    hostile_server: Any, engine: Any, promised: Promised
) -> None:
    hostile_server.files["/f"] = SMALL
    engine.limits = replace(engine.limits, pause=0.2)
    hostile_server.behaviour = lambda exchange, number: (
        exchange.answer(429, Retry_After="31536000") if number == 1 else exchange.good()
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), SMALL)) == {"f": SMALL}


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_stalled_connection_is_left(
    hostile_server: Any, engine: Any, promised: Promised, content: bytes
) -> None:
    hostile_server.files["/f"] = content
    hostile_server.behaviour = lambda exchange, number: (
        exchange.stall(30) if number == (1 if content == SMALL else 2) else exchange.good()
    )
    begin = time.monotonic()
    assert engine.fetch(promised("f", hostile_server.url("/f"), content)) == {"f": content}
    assert 0.4 < time.monotonic() - begin < 5


def test_no_answer_at_all(hostile_server: Any, engine: Any, promised: Promised) -> None:
    hostile_server.files["/f"] = SMALL
    hostile_server.behaviour = lambda exchange, number: (
        hostile_server.stopped.wait(30) if number == 1 else exchange.good()
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), SMALL)) == {"f": SMALL}
    assert any("no answer in time" in line for line in engine.said)


def test_a_slow_drip_is_left(hostile_server: Any, engine: Any, promised: Promised) -> None:
    """A byte now and then keeps a connection alive, and leads nowhere."""
    hostile_server.files["/f"] = SMALL

    def behave(exchange: Any, number: int) -> None:
        if number > 1:
            exchange.good()
            return
        exchange.begin(200, Content_Length=str(len(SMALL)))
        while not hostile_server.stopped.wait(0.05):
            exchange.write(b"x")

    hostile_server.behaviour = behave
    begin = time.monotonic()
    assert engine.fetch(promised("f", hostile_server.url("/f"), SMALL)) == {"f": SMALL}
    assert time.monotonic() - begin < 5
    assert any("fewer than" in line for line in engine.said)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_resets(hostile_server: Any, engine: Any, promised: Promised, content: bytes) -> None:
    hostile_server.files["/f"] = content
    hostile_server.behaviour = lambda exchange, number: (
        exchange.reset() if number < 4 else exchange.good()
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), content)) == {"f": content}


def test_nobody_listens(hostile_server: Any, engine: Any, promised: Promised) -> None:
    hostile_server.close()
    with pytest.raises(SourceError, match="Connection refused"):
        engine.fetch(promised("f", hostile_server.url("/f"), SMALL))


def test_nonsense_instead_of_http(engine: Any, promised: Promised) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(4):
                connection, _address = listening.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/f?token=hunter2"
        with pytest.raises(SourceError, match="could not be fetched") as caught:
            engine.fetch(promised("f", url, SMALL))
        thread.join()
    assert "hunter2" not in str(caught.value)


def test_limits_of_size_and_time(hostile_server: Any, engine: Any, promised: Promised) -> None:
    hostile_server.files["/f"] = SMALL
    remote = promised("f", hostile_server.url("/f"), SMALL)
    engine.limits = Limits(size=100_000)
    with pytest.raises(SourceError, match=r"larger than 100\.0 kB"):
        engine.fetch(remote)
    with pytest.raises(SourceError, match=r"larger than 100\.0 kB"):
        engine.fetch(replace(remote, size=None))

    def without_length(exchange: Any, _number: int) -> None:
        exchange.begin(200, Connection="close")
        exchange.write(SMALL)
        exchange.close()

    hostile_server.behaviour = without_length
    with pytest.raises(SourceError, match=r"larger than 100\.0 kB"):
        engine.fetch(replace(remote, size=None))
    engine.limits = Limits()
    assert engine.fetch(replace(remote, size=None)) == {"f": SMALL}
    engine.limits = Limits(seconds=0.3, slowest=1 << 60)
    hostile_server.behaviour = lambda exchange, _number: exchange.stall(30)
    begin = time.monotonic()
    with pytest.raises(SourceError, match="took longer than"):
        engine.fetch(remote)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("known", [True, False])
def test_there_is_no_room(
    hostile_server: Any, engine: Any, promised: Promised, known: bool
) -> None:
    hostile_server.files["/f"] = SMALL
    hostile_server.behaviour = lambda exchange, _number: exchange.answer(
        206, Content_Range=f"bytes 0-{MIB - 1}/{1 << 60}", ETag='"one"'
    )
    engine.limits = Limits(size=1 << 62)
    remote = promised("f", hostile_server.url("/f"), SMALL)
    with pytest.raises(SourceError, match="free on the disk"):
        engine.fetch(replace(remote, size=1 << 60 if known else None))
    assert len(hostile_server.requests) == (0 if known else 1)


def test_one_bad_file_of_several(hostile_server: Any, engine: Any, promised: Promised) -> None:
    """An error ends the others soon, also those that wait for a server."""
    hostile_server.files = {f"/{number}": SMALL for number in range(20)}

    def behave(exchange: Any, _number: int) -> None:
        if exchange.path == "/7":
            exchange.answer(404)
        else:
            exchange.stall(30)

    hostile_server.behaviour = behave
    engine.limits = Limits()
    begin = time.monotonic()
    with pytest.raises(SourceError, match="/7: the server answered 404"):
        engine.fetch(
            *(promised(name, hostile_server.url(name), SMALL) for name in hostile_server.files)
        )
    assert time.monotonic() - begin < 3
    assert not [t for t in threading.enumerate() if t.name.startswith("fetch-")]
    assert engine.left() == []
