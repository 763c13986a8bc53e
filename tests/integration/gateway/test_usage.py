"""What is billed is what was asked, over stops and kills."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tracklayer.access import Keys
from tracklayer.gateway import Route
from tracklayer.gateway.usage import used


def test_the_sum_is_what_was_asked(gateway: Any, echo: Any, tmp_path: Path) -> None:
    gate, servers = gateway(), {1: echo(), 2: echo()}
    versions = {number: [server.path] for number, server in servers.items()}
    gate.client.route("digits", Route(versions=versions, weights={1: 3, 2: 1}))
    _, key = Keys(tmp_path / "state" / "keys.json").create("alice")
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
