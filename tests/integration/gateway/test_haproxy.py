"""What only a gateway with HAProxy can get wrong."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest

from tracklayer.access import Admission
from tracklayer.gateway import GatewayClient, Route
from tracklayer.gateway.haproxy.control import Control
from tracklayer.gateway.haproxy.lanes import Lanes
from tracklayer.gateway.live import LiveRoute


@pytest.fixture(scope="session")
def proxy(haproxy: str) -> str:
    assert haproxy
    return "haproxy"


@pytest.fixture
def passed_on(tmp_path: Path) -> Callable[[], dict[str, int]]:
    """Requests that HAProxy gave to each server by itself, and to our own proxy."""

    def count() -> dict[str, int]:
        told = asyncio.run(
            Control(tmp_path / "admin.haproxy" / "control.sock")("show stat -1 4 -1")
        )
        found: dict[str, int] = {}
        for line in told.splitlines()[1:]:
            fields = line.split(",")
            found[fields[1]] = found.get(fields[1], 0) + int(fields[7])
        return found

    return count


def child(gate: Any) -> psutil.Process:
    [found] = psutil.Process(gate.process.pid).children()
    assert found.name() == "haproxy"
    return found


def until(done: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_the_usual_request_is_its_own_and_every_other_is_ours(
    gateway: Any, echo: Any, passed_on: Any
) -> None:
    gate, one, two = gateway(), echo(), echo()
    gate.client.switch("digits", 1, [one.path])
    with httpx.Client() as client:
        for number in range(1, 21):
            client.post(f"{gate.url}/digits/x", content=b"x" * 1000 * number)
        assert passed_on() == {"s1": 20, "whole": 0}
        client.post(f"{gate.url}/digits/x", content=b"x" * 100_000)
        client.post(f"{gate.url}/digits/x", content=iter([b"a", b"b"]))
        client.get(f"{gate.url}/nobody/x")
        assert passed_on() == {"s1": 20, "whole": 3}
        # A version on trial may cost nobody an answer: its share is ours, until it is the champion.
        versions = {1: [one.path], 2: [two.path]}
        shared = {"versions": versions, "weights": {1: 1, 2: 1}, "aliases": {"champion": 1}}
        gate.client.route("digits", Route.model_validate(shared))
        for _ in range(10):
            client.get(f"{gate.url}/digits/x")
        assert passed_on() == {"s1": 25, "whole": 8}
        gate.client.switch("digits", 2, [two.path])
        for _ in range(10):
            client.get(f"{gate.url}/digits/x")
    assert passed_on() == {"s1": 10, "whole": 8}
    assert two.asked == 15


def test_killed_it_is_there_again_and_knows_what_it_knew(gateway: Any, echo: Any) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("digits", 1, [one.path])
    assert httpx.get(f"{gate.url}/digits/x").status_code == 200
    first = child(gate)
    first.kill()
    # Who comes meanwhile waits: the listening socket is still there.
    assert httpx.get(f"{gate.url}/digits/x", timeout=10).status_code == 200
    assert child(gate).pid != first.pid
    gate.client.switch("digits", 2, [one.path])
    answer = httpx.get(f"{gate.url}/digits/x")
    assert answer.headers["x-tracklayer-version"] == "2"
    gate.process.terminate()
    _, said = gate.process.communicate(timeout=10)
    assert "HAProxy has ended with -9; it is started again" in said
    assert "Traceback" not in said


def test_it_does_not_outlive_the_gateway(gateway: Any, echo: Any, tmp_path: Path) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("digits", 1, [one.path])
    left = child(gate)
    gate.process.kill()
    gate.process.wait()
    until(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE)
    again = gateway()
    assert httpx.get(f"{again.url}/digits/x").status_code == 200
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(10) == 0
    assert not (tmp_path / "admin.haproxy").exists()


def test_an_idle_caller_does_not_hold_up_the_stop(gateway: Any, echo: Any) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("digits", 1, [one.path])
    with httpx.Client() as idle:
        assert idle.get(f"{gate.url}/digits/x").status_code == 200
        begin = time.monotonic()
        gate.process.send_signal(signal.SIGTERM)
        assert gate.process.wait(10) == 0
        assert time.monotonic() - begin < 3


def test_one_that_cannot_do_it_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: Any
) -> None:
    old = tmp_path / "bin" / "haproxy"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho HAProxy version 2.4.22\n")
    old.chmod(0o700)
    monkeypatch.setenv("PATH", str(old.parent), prepend=":")
    process = spawn(
        "tracklayer.gateway",
        *("--port", 0, "--admin", tmp_path / "a.sock", "--routes", tmp_path / "routes.json"),
        *("--state", tmp_path / "state", "--proxy", "haproxy"),
    )
    _, said = process.communicate(timeout=20)
    assert process.returncode == 13
    assert f"error: {old} is 2.4, and 2.6 is needed" in said
    assert "apt install haproxy" in said
    assert "Traceback" not in said


def test_folders_may_be_called_anything(spawn: Any, echo: Any) -> None:
    one = echo()
    # A short one: the path of a socket may have 107 bytes.
    with TemporaryDirectory() as name:
        folder = Path(name) / 'it\'s 1% "a; b" #1'
        folder.mkdir()
        odd = folder / "one.sock"
        one.path.rename(odd)
        process = spawn(
            "tracklayer.gateway",
            *("--port", 0, "--admin", folder / "a.sock", "--routes", folder / "routes.json"),
            *("--state", folder / "state", "--proxy", "haproxy"),
        )
        url = process.stdout.readline().split()[-1]
        GatewayClient(folder / "a.sock").switch("digits", 1, [odd])
        for _ in range(10):
            assert httpx.get(f"{url}/digits/x").status_code == 200
        told = asyncio.run(Control(folder / "a.haproxy" / "control.sock")("show stat lane0 4 -1"))
        assert [line.split(",")[7] for line in told.splitlines() if ",s1," in line] == ["10"]
        process.terminate()
        assert process.wait(10) == 0


def test_a_lane_is_nobody_elses_while_a_request_is_in_it(tmp_path: Path) -> None:
    """Its server leaves only when HAProxy lets it; until then the lane has one that is not free."""
    told: list[str] = []
    at_work = 1

    class Told(Control):
        async def __call__(self, command: str) -> str:
            told.append(command)
            return {"add": "New server registered.", "del": "Server deleted.", "tra": "ok"}.get(
                command[:3], ""
            )

        async def in_flight(self, backend: str, server: str) -> int:
            return at_work

    async def scenario() -> tuple[int, int]:
        nonlocal at_work
        lanes = Lanes(Told(tmp_path / "none"), 1, tmp_path / "known.lua")
        admission = Admission(tmp_path / "keys.json", closed=False)
        path = tmp_path / "one.sock"
        live = LiveRoute("digits", Route.of(1, [path]), {}, {}, None)
        await lanes.follow({"digits": live}, admission, ())
        await lanes.follow({}, admission, [live.backends[path]])
        await asyncio.sleep(0.1)
        busy = len(lanes._free)
        at_work = 0
        await asyncio.sleep(0.2)
        return busy, len(lanes._free)

    assert asyncio.run(scenario()) == (0, 1)
    assert "del server lane0/s1" in told
