from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tracklayer.serving.app import Application
from tracklayer.serving.http import Service

INFER = "/v2/models/m/infer"
Use = Callable[..., None]


def body(times: int) -> bytes:
    data = {"name": "times", "shape": [1], "datatype": "INT64", "data": [times]}
    return orjson.dumps({"inputs": [data]})


def test_paths_and_methods(use: Use, linear: Path) -> None:
    async def test(client: httpx.AsyncClient, *_: object) -> None:
        for path, message in (
            ("/nothing", "nothing at '/nothing'"),
            ("/v2/models/other/infer", "no model 'other' here; this is 'm'"),
            ("/v2/models/m/versions/9/infer", "no version '9' here; this is '3'"),
            ("/v2/models/m/versions", "no version '' here"),
            ("/v2/models/m/nothing", "nothing at"),
        ):
            answer = await client.post(path)
            assert answer.status_code == 404
            assert message in answer.json()["error"]
        answer = await client.get(INFER)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        answer = await client.post("/v2")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        answer = await client.head("/v2/health/ready")
        assert (answer.status_code, answer.content) == (200, b"")

    use(linear, test)


@pytest.mark.parametrize("inline", [0.0, 10.0])
def test_both_ways_of_running_answer_alike(use: Use, loop: Path, inline: float) -> None:
    async def test(client: httpx.AsyncClient, application: Application, _: Service) -> None:
        application.warm_up(body(1))
        answer = await client.post(INFER, content=body(3))
        assert answer.json()["outputs"] == [
            {"name": "sum", "shape": [], "datatype": "FP32", "data": [0.0]}
        ]
        answer = await client.post(INFER, content=b"{}")
        assert answer.status_code == 400
        assert application.in_flight == 0

    use(loop, test, inline=inline)


def test_a_model_that_got_slow_leaves_the_event_loop(use: Use, loop: Path) -> None:
    async def test(client: httpx.AsyncClient, application: Application, _: Service) -> None:
        application.warm_up(body(1))
        await client.post(INFER, content=body(20_000))
        slow = asyncio.create_task(client.post(INFER, content=body(20_000)))
        while not application.in_flight:
            await asyncio.sleep(0)
        assert (await client.get("/v2/health/live")).status_code == 200
        assert not slow.done()
        assert (await slow).status_code == 200

    use(loop, test, inline=0.001)


def test_a_request_that_takes_too_long_is_ended(use: Use, loop: Path) -> None:
    async def test(client: httpx.AsyncClient, application: Application, _: Service) -> None:
        answer = await client.post(INFER, content=body(10**9))
        assert answer.status_code == 504
        assert "longer than 0.3 s" in answer.json()["error"]
        # The only worker is free again: the run itself was ended, not just its request.
        answer = await client.post(INFER, content=body(1))
        assert answer.status_code == 200

    use(loop, test, seconds=0.3, workers=1, inline=0)


def test_too_many_at_once_are_told_to_come_back(use: Use, loop: Path) -> None:
    async def test(client: httpx.AsyncClient, application: Application, _: Service) -> None:
        first = asyncio.create_task(client.post(INFER, content=body(10**9)))
        while not application.in_flight:
            await asyncio.sleep(0.01)
        second = await client.post(INFER, content=body(1))
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        assert (await first).status_code == 504

    use(loop, test, seconds=1.0, concurrency=1, inline=0)


def test_a_large_body_is_refused_by_length_and_by_count(use: Use, linear: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    async def test(client: httpx.AsyncClient, *_: object) -> None:
        assert (await client.post(INFER, content=b" " * 1001)).status_code == 413
        assert (await client.post(INFER, content=chunks())).status_code == 413
        assert (await client.post(INFER, content=b" " * 1000)).status_code == 400

    use(linear, test, body=1000)


def test_a_slow_body_is_given_up(use: Use, linear: Path) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    async def test(client: httpx.AsyncClient, *_: object) -> None:
        answer = await client.post(INFER, content=slowly())
        assert answer.status_code == 408

    use(linear, test, seconds=0.2)


def test_compressed_bodies_are_refused(use: Use, linear: Path) -> None:
    async def test(client: httpx.AsyncClient, *_: object) -> None:
        answer = await client.post(INFER, content=b"x", headers={"content-encoding": "gzip"})
        assert answer.status_code == 415

    use(linear, test)


def test_a_draining_server_refuses_and_says_so(use: Use, linear: Path) -> None:
    async def test(client: httpx.AsyncClient, _: Application, service: Service) -> None:
        assert (await client.get("/ping")).status_code == 200
        service.draining = True
        answer = await client.post(INFER, content=b"{}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get("/ping")).status_code == 503

    use(linear, test)


def test_a_fault_of_ours_shows_no_trace(
    use: Use, linear: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(client: httpx.AsyncClient, _: Application, service: Service) -> None:
        def fail(*_: object) -> list[Any]:
            raise ZeroDivisionError("inside")

        monkeypatch.setattr(service.model, "run", fail)
        request = {"instances": [[1, 2, 3, 4]]}
        answer = await client.post("/invocations", json=request)
        assert answer.status_code == 500
        assert answer.json() == {"error": "the server failed on this request"}
        assert "inside" in caplog.text

    use(linear, test)
