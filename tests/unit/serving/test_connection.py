"""HTTP/1.1 byte by byte, by a client that does what no library would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tracklayer.serving.app import Application

Use = Callable[..., None]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Application], Awaitable[None]]
Raw = Callable[..., None]

LINEAR = orjson.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
)


def endless(times: int = 10**9) -> bytes:
    data = {"name": "times", "shape": [1], "datatype": "INT64", "data": [times]}
    return orjson.dumps({"inputs": [data]})


def post(body: bytes, *headers: str, path: str = "/v2/models/m/infer") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: m", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
def raw(use: Use, tmp_path: Path) -> Raw:
    """``raw(folder, talk, **limits)`` runs ``talk(reader, writer, application)``."""

    def run(folder: Path, talk: Talk, **limits: Any) -> None:
        async def test(_: object, application: Application, __: object) -> None:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            try:
                async with asyncio.timeout(10):
                    await talk(reader, writer, application)
            finally:
                writer.close()

        use(folder, test, **limits)

    return run


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    status = int(head[0].split()[1])
    length = 0 if status == 100 else int(headers["content-length"])
    return status, headers, await reader.readexactly(length)


def test_pipelined_requests_are_answered_in_their_order(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, application: Application) -> None:
        requests = [post(orjson.dumps({"id": str(n), **orjson.loads(LINEAR)})) for n in range(200)]
        requests[50] = b"GET /v2/health/live HTTP/1.1\r\nhost: m\r\n\r\n"
        writer.write(b"".join(requests))
        for number in range(200):
            status, _, body = await answer(reader)
            assert status == 200
            assert orjson.loads(body).get("id") == (None if number == 50 else str(number))
        assert application.in_flight == 0

    for inline in (0.0, 10.0):
        raw(linear, talk, inline=inline, concurrency=1000)


def test_a_request_in_single_bytes_and_one_in_chunks(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        for byte in post(LINEAR):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await answer(reader))[0] == 200
        writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (LINEAR[:7], LINEAR[7:]):
            writer.write(b"%x;extension=1\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\ntrailer: x\r\n\r\n")
        assert (await answer(reader))[0] == 200

    raw(linear, talk)


def test_expect_head_query_escapes_and_absolute_targets(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        head, _, body = post(LINEAR, "expect: 100-continue").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert (await answer(reader))[0] == 100
        writer.write(body)
        assert (await answer(reader))[0] == 200
        for target in ("/ping?x=1", "/p%69ng", "http://m/ping"):
            writer.write(f"GET {target} HTTP/1.1\r\nhost: m\r\n\r\n".encode())
            assert (await answer(reader))[0] == 200
        writer.write(b"HEAD /v2 HTTP/1.1\r\nhost: m\r\n\r\n")
        headers = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: " in headers
        assert b"date: " in headers
        # Nothing of a body came before the next answer.
        writer.write(b"GET /ping HTTP/1.1\r\nhost: m\r\n\r\n")
        assert (await answer(reader))[0] == 200

    raw(linear, talk)


def test_http_1_0_is_closed_unless_it_asks(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(b"GET /ping HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "keep-alive")
        writer.write(b"GET /ping HTTP/1.0\r\n\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""

    raw(linear, talk)


def test_an_offered_upgrade_is_declined(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(post(LINEAR, "upgrade: h2c", "connection: upgrade"))
        assert (await answer(reader))[0] == 200
        writer.write(b"GET /ping HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")
        assert (await answer(reader))[0] == 200
        writer.write(b"CONNECT m:1 HTTP/1.1\r\nhost: m\r\n\r\nGET")
        assert (await answer(reader))[0] in (404, 405)
        assert await reader.read() == b""

    raw(linear, talk)


@pytest.mark.parametrize("more", [(), ("connection: keep-alive",), ("connection: close",)])
def test_an_upgrade_that_is_not_asked_for_is_no_offer(
    linear: Path, raw: Raw, more: tuple[str, ...]
) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(post(LINEAR, "upgrade: x", *more))
        status, headers, _ = await answer(reader)
        assert (status, headers.get("connection")) == (
            200,
            more[0].partition(": ")[2] if more else None,
        )
        if "connection: close" not in more:
            writer.write(b"GET /ping HTTP/1.1\r\nhost: m\r\n\r\n")
            assert (await answer(reader))[2] == b"{}"

    raw(linear, talk)


def test_an_upgrade_offered_by_http_1_0_ends_its_connection(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(b"GET /ping HTTP/1.0\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""

    raw(linear, talk)


def test_a_long_head_is_refused_with_its_body_right_behind(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(post(LINEAR, f"x-long: {'a' * 70_000}"))
        status, _, body = await answer(reader)
        assert (status, b"the head is larger" in body) == (431, True)

    raw(linear, talk)


def test_a_trailer_changes_nothing(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        body = b'{"instances": [[1, 2, 3, 4]]}'
        writer.write(
            b"POST /invocations HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\naccept: text/csv\r\n\r\n" % (len(body), body)
        )
        status, headers, _ = await answer(reader)
        assert (status, headers["content-type"]) == (200, "application/json")

    raw(linear, talk)


def test_another_transfer_coding_is_refused(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(
            b"POST /invocations HTTP/1.1\r\nhost: m\r\ntransfer-encoding: gzip, chunked\r\n\r\n"
        )
        status, _, body = await answer(reader)
        assert (status, b"only chunked" in body) == (501, True)

    raw(linear, talk)


def test_http_1_0_is_not_told_to_go_on(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        request = post(LINEAR, "expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        writer.write(request)
        assert (await answer(reader))[0] == 200

    raw(linear, talk)


def test_a_client_that_has_said_all_still_hears(loop: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(post(endless(500)) + post(endless(1)))
        writer.write_eof()
        assert (await answer(reader))[0] == 200
        assert (await answer(reader))[0] == 200
        assert await reader.read() == b""

    raw(loop, talk)


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        (b"POST /invocations HTTP/1.1\r\nhost: m\r\n", 408, "the head took longer"),
        (b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-length: 5\r\n\r\n{", 408, "the body"),
    ],
)
def test_a_slow_request_is_given_up(
    linear: Path, raw: Raw, head: bytes, status: int, message: str
) -> None:
    async def talk(reader: Any, writer: Any, application: Application) -> None:
        begin = time.monotonic()
        writer.write(head)
        found, headers, body = await answer(reader)
        assert (found, headers["connection"]) == (status, "close")
        assert message in json.loads(body)["error"]
        assert time.monotonic() - begin < 3
        assert await reader.read() == b""
        assert application.in_flight == 0

    raw(linear, talk, seconds=0.3, head=0.3)


def test_one_byte_now_and_then_does_not_help(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        reading = asyncio.create_task(answer(reader))
        writer.write(b"GET /ping HTTP/1.1\r\n")
        for number in range(50):
            if reading.done():
                break
            writer.write(f"x-{number}: 1\r\n".encode())
            await asyncio.sleep(0.05)
        assert (await reading)[0] == 408

    raw(linear, talk, head=0.3)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /ping HTTP/1.1\r\nx: " + b"a" * 200_000,
        b"POST /invocations HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n1;"
        + b"a" * 200_000,
        b"GET /ping HTTP/1.1\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
    ],
)
def test_a_head_has_a_limit(linear: Path, raw: Raw, data: bytes) -> None:
    async def talk(reader: Any, writer: Any, application: Application) -> None:
        writer.write(data)
        assert (await answer(reader))[0] == 431
        assert application.in_flight == 0

    raw(linear, talk)


def test_a_large_body_is_refused_before_it_is_sent(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-length: 100000000\r\n\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (413, "close")

    raw(linear, talk, body=1000)


def test_a_small_refused_body_does_not_end_the_connection(linear: Path, raw: Raw) -> None:
    async def talk(reader: Any, writer: Any, __: Application) -> None:
        writer.write(post(LINEAR, path="/nothing") + post(LINEAR))
        assert (await answer(reader))[0] == 404
        assert (await answer(reader))[0] == 200

    raw(linear, talk)


def test_a_client_that_leaves_ends_its_run(loop: Path, raw: Raw) -> None:
    async def talk(_: Any, writer: Any, application: Application) -> None:
        writer.write(post(endless()))
        while not application.in_flight:
            await asyncio.sleep(0.01)
        writer.close()
        while application.in_flight:
            await asyncio.sleep(0.01)
        page = application.metrics.page(0).decode()
        assert 'code="499"' in page

    raw(loop, talk, workers=1)


def test_a_client_that_does_not_read_is_not_worked_for(linear: Path, raw: Raw) -> None:
    async def talk(_: Any, writer: Any, application: Application) -> None:
        writer.transport.pause_reading()
        request = post(LINEAR)
        sent = 0
        closed = False
        while not closed:
            writer.write(request * 100)
            sent += 100
            try:
                async with asyncio.timeout(2):
                    await writer.drain()
            except TimeoutError:
                break
            except ConnectionError:
                closed = True
        page = application.metrics.page(0).decode()
        name = 'tracklayer_request_seconds_count{model="m",version="3",protocol="open_inference"'
        counted = [line for line in page.splitlines() if line.startswith(name)]
        assert int(counted[0].split()[-1]) < sent
        assert application.in_flight <= 2

    raw(linear, talk, seconds=1.0)


def test_too_many_connections_are_told_so(linear: Path, use: Use, tmp_path: Path) -> None:
    async def test(*_: object) -> None:
        opened = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(4)]
        assert (await answer(opened[3][0]))[0] == 503
        for each in opened:
            each[1].close()

    use(linear, test, connections=3)


def test_an_inference_that_blocks_the_event_loop_goes_on_in_a_thread(loop: Path, use: Use) -> None:
    async def test(client: Any, application: Application, _: object) -> None:
        application.warm_up(endless(1))
        path = "/v2/models/m/infer"
        slow = asyncio.create_task(client.post(path, content=endless(10**9)))
        await asyncio.sleep(0.2)
        begin = time.monotonic()
        assert (await client.get("/v2/health/live")).status_code == 200
        assert time.monotonic() - begin < 0.5
        assert (await slow).status_code == 504
        assert (await client.post(path, content=endless(1))).status_code == 200

    use(loop, test, inline=0.01, seconds=1.0)
