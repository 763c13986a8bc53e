"""Shares, versions and aliases of a project, and what a version on trial may cost: nothing."""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tracklayer.errors import ServiceError
from tracklayer.gateway import Route

ONE = b"GET /digits/x HTTP/1.1\r\nHost: g\r\n\r\n"


def route(servers: dict[int, Any], weights: dict[int, int], **more: Any) -> Route:
    versions = {version: [server.path] for version, server in servers.items()}
    return Route(versions=versions, weights=weights, **more)


async def answers(url: str, connections: int, each: int) -> collections.Counter[str]:
    """Which version answered how often."""
    found: collections.Counter[str] = collections.Counter()

    async def ask() -> None:
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for _ in range(each):
            writer.write(ONE)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:-2])
            await reader.readexactly(int(fields["content-length"]))
            found[f"{head[0].split()[1]} {fields['x-tracklayer-version']}"] += 1
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return found


def test_shares_are_exact_with_many_connections(gateway: Any, echo: Any) -> None:
    gate = gateway()
    servers = {1: echo(), 2: echo(), 3: echo()}
    gate.client.route("digits", route(servers, {1: 85, 2: 10, 3: 5}))
    found = asyncio.run(answers(gate.url, 8, 1250))
    assert sum(found.values()) == 10_000
    for version, share in ((1, 0.85), (2, 0.1), (3, 0.05)):
        assert abs(found[f"200 {version}"] / 10_000 - share) < 0.0002
        assert abs(servers[version].asked / 10_000 - share) < 0.0002
    counted = gate.client.stats("digits")
    assert {v: counted[v].requests for v in servers} == {v: servers[v].asked for v in servers}


def test_shares_are_exact_through_many_changes_and_none_is_lost(gateway: Any, echo: Any) -> None:
    gate = gateway()
    servers = {1: echo(), 2: echo()}
    shares = {1: 9, 2: 1}
    gate.client.route("digits", route(servers, shares))
    stop = threading.Event()
    changes = 0

    def change() -> None:
        nonlocal changes
        while not stop.is_set():
            changes += 1
            # A third version comes and goes without a share; the replica set changes each time.
            more = {**servers, 3: echo()} if changes % 2 else servers
            assert gate.client.route("digits", route(more, shares)).drained

    changing = threading.Thread(target=change)
    changing.start()
    found = asyncio.run(answers(gate.url, 8, 1250))
    stop.set()
    changing.join()
    assert changes > 20
    assert found.keys() == {"200 1", "200 2"}
    assert sum(found.values()) == 10_000
    assert abs(found["200 2"] - 1000) < 100


def test_versions_and_aliases_have_addresses(gateway: Any, echo: Any) -> None:
    gate = gateway()
    servers = {3: echo(), 12: echo()}
    aliases = {"champion": 3, "next": 12}
    gate.client.route("digits", route(servers, {3: 1, 12: 0}, aliases=aliases))
    expected = {"": "3", "@3": "3", "@champion": "3", "@12": "12", "@next": "12", "%4012": "12"}
    for selector, version in expected.items():
        answer = httpx.get(f"{gate.url}/digits{selector}/a@b?q=1/2")
        assert (answer.status_code, answer.headers["x-tracklayer-version"]) == (200, version)
        assert answer.json()["path"] == "/a@b?q=1/2"
    sent = dict(httpx.get(f"{gate.url}/digits@next/").json()["headers"])
    assert sent["x-forwarded-prefix"] == "/digits@next"
    for path in ("/digits@12", "/digits@12?a=/b"):
        assert httpx.get(f"{gate.url}{path}").headers["x-tracklayer-version"] == "12"
    for selector in ("4", "nobody", "", "3@3", "03", "٣", "9" * 30):
        answer = httpx.get(f"{gate.url}/digits@{selector}/x")
        assert answer.status_code == 404
        assert "@3, @12, @champion, @next" in answer.json()["error"]
    assert httpx.get(f"{gate.url}/other@3/x").status_code == 404


def test_a_route_that_is_not_whole_is_refused(gateway: Any, echo: Any) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("digits", 1, [one.path])
    transport = httpx.HTTPTransport(uds=str(gate.client._admin))
    servers = {"1": [str(one.path)]}
    with httpx.Client(transport=transport, base_url="http://gateway") as client:
        for wrong, problem in (
            ({"versions": servers, "weights": {"2": 1}}, "version 2 has no servers"),
            ({"versions": servers, "weights": {"1": 0}}, "needs a share above 0"),
            ({"versions": servers, "weights": {"1": -1}}, "greater than or equal to 0"),
            ({"versions": servers, "weights": {"1": 1}, "aliases": {"a": 3}}, "version 3"),
            ({"versions": servers, "weights": {"1": 1}, "aliases": {"3": 1}}, "pattern"),
            ({"versions": {}, "weights": {}}, "at least 1"),
            ({"versions": {"1": []}, "weights": {"1": 1}}, "at least 1"),
        ):
            answer = client.put("/-/routes/digits", json=wrong)
            assert (answer.status_code, problem in answer.json()["error"]) == (400, True), (
                answer.text
            )
        for path in ("/-/routes/Digits", "/-/routes/digits?drain=inf", "/-/routes/digits?drain=x"):
            assert client.put(path, json={}).status_code == 400
        assert client.post("/-/routes").status_code == 404
    assert gate.client.routes() == {"digits": Route.of(1, [one.path])}


def test_what_a_version_on_trial_fails_on_is_answered_by_the_main_one(
    gateway: Any, echo: Any
) -> None:
    gate, main, trial = gateway(), echo(), echo()
    servers = {1: main, 2: trial}
    gate.client.route("digits", route(servers, {1: 3, 2: 1}))
    trial.status = 500
    assert asyncio.run(answers(gate.url, 4, 100)) == {"200 1": 400}
    assert (trial.asked, main.asked) == (100, 400)
    counted = gate.client.stats("digits")
    assert (counted[2].requests, counted[2].errors) == (100, 100)
    assert (counted[1].requests, counted[1].errors) == (400, 0)
    trial.dies = True
    assert asyncio.run(answers(gate.url, 4, 100)) == {"200 1": 400}
    assert gate.client.stats("digits")[2].errors > 195
    # Who asks for it by name gets what it has to say.
    trial.dies = False
    assert httpx.get(f"{gate.url}/digits@2/x").status_code == 500
    # The main version's errors are its own.
    main.status = 500
    assert set(asyncio.run(answers(gate.url, 1, 8))) == {"500 1"}


def test_a_version_on_trial_that_is_gone_costs_nobody_a_request(gateway: Any, serve: Any) -> None:
    gate, main, trial = gateway(), serve(1), serve(2)
    versions = {1: [main.socket], 2: [trial.socket]}
    gate.client.route("digits", Route(versions=versions, weights={1: 1, 2: 1}))
    found = set()
    with httpx.Client() as client:
        for number in range(40):
            if number == 20:
                trial.process.kill()
                trial.process.wait()
            answer = client.get(f"{gate.url}/digits/v2/models/digits")
            assert answer.status_code == 200
            if number >= 20:
                found.add(answer.headers["x-tracklayer-version"])
        assert found == {"1"}
        answer = client.get(f"{gate.url}/digits@2/v2/models/digits")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert gate.client.stats("digits")[2].errors >= 10


def test_a_version_with_all_requests_that_is_gone_leaves_them_to_the_champion(
    gateway: Any, serve: Any
) -> None:
    """As a rolling one has them, while it is watched."""
    gate, main, trial = gateway(), serve(1), serve(2)
    versions = {1: [main.socket], 2: [trial.socket]}
    route = Route(versions=versions, weights={1: 0, 2: 1}, aliases={"champion": 1})
    gate.client.route("digits", route)
    found = []
    with httpx.Client() as client:
        for number in range(10):
            if number == 5:
                trial.process.kill()
                trial.process.wait()
            answer = client.get(f"{gate.url}/digits/v2/models/digits")
            assert answer.status_code == 200
            found.append(answer.headers["x-tracklayer-version"])
    assert found == ["2"] * 5 + ["1"] * 5


def test_the_stats_say_how_long_and_how_well(gateway: Any, echo: Any) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("digits", 1, [one.path])
    assert gate.client.stats("digits")[1].requests == 0
    assert gate.client.stats("other") == {}
    for status, count in ((200, 5), (404, 3), (500, 2)):
        one.status = status
        for _ in range(count):
            httpx.get(f"{gate.url}/digits/x")
    counted = gate.client.stats("digits")[1]
    assert (counted.requests, counted.client_errors, counted.errors) == (10, 3, 2)
    assert counted.codes == {"2xx": 5, "4xx": 3, "5xx": 2}
    assert 0 < counted.seconds < 2
    assert sum(counted.latency) == 10
    assert 0 < counted.quantile(0.5) <= counted.quantile(0.99) < 1
    httpx.get(f"{gate.url}/digits/x")
    assert gate.client.stats("digits")[1].since(counted).requests == 1
    page = httpx.get(f"{gate.url}/-/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    labels = 'project="digits",version="1"'
    assert f'tracklayer_gateway_requests_total{{{labels},code="4xx"}} 3' in page.text
    assert f"tracklayer_gateway_request_seconds_count{{{labels}}} 11" in page.text
    assert 'caller="' not in page.text


def test_a_server_that_stays_may_be_down_and_a_new_one_not(
    gateway: Any, echo: Any, tmp_path: Any
) -> None:
    gate, one, two = gateway(), echo(), echo()
    gate.client.switch("digits", 1, [one.path])
    one.path.unlink()
    gate.client.route("digits", route({1: one, 2: two}, {1: 1, 2: 1}))
    with pytest.raises(ServiceError, match="accepts connections"):
        gate.client.route("digits", Route.of(3, [tmp_path / "nobody"]))
    begin = time.monotonic()
    assert httpx.get(f"{gate.url}/digits/x").status_code == 200
    assert time.monotonic() - begin < 1
