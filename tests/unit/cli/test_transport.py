from __future__ import annotations

import socket

import pytest

from tracklayer.cli.client import Platform
from tracklayer.cli.transport import Transport, UnreachableError
from tracklayer.errors import (
    MetricError,
    PlatformError,
    Problem,
    ProjectError,
    SpecError,
    TracklayerError,
)

PATH = "/tracklayer/platform"


def describe(server):
    with Platform(server.url, "a.token") as platform:
        return platform.describe()


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, {"detail": "Not authenticated"}, PlatformError, "does not take this token"),
        (403, {"detail": "Invalid JWT token"}, PlatformError, "does not take this token"),
        (403, {"detail": "Forbidden"}, PlatformError, "does not allow this user"),
        (404, {"detail": "Not Found"}, PlatformError, "is no Tracklayer platform"),
        (404, {"detail": "The Dag `x` was not found"}, ProjectError, "The Dag `x` was not found"),
        (400, {"detail": "epochs: 9 is too much\n\nlong"}, ProjectError, "epochs: 9 is too much"),
        (422, {"detail": [{"loc": ["body", "a"], "msg": "bad"}]}, ProjectError, "body.a: bad"),
        (409, {"detail": {"reason": "It is there."}}, ProjectError, "It is there"),
        (418, b"tea", PlatformError, "answered 418 to GET"),
        (200, b"<html>", PlatformError, "did not answer with JSON"),
        (200, [], PlatformError, "something unexpected"),
        (500, {"error": "odd", "kind": "MetricError", "hint": "h"}, MetricError, "odd"),
        (500, {"error": "odd", "kind": "dataclass", "hint": "h"}, PlatformError, "odd"),
    ],
)
def test_what_the_platform_refuses_is_an_error_of_ours(server, status, body, kind, message):
    server.answers[f"GET {PATH}"] = (status, body)
    with pytest.raises(TracklayerError, match=message) as caught:
        describe(server)
    assert type(caught.value) is kind


def test_the_problems_of_a_spec_come_through(server):
    problem = {"file": "a.yaml", "line": 2, "column": 3, "message": "no", "hint": None}
    body = {"error": "x", "kind": "SpecError", "hint": None, "problems": [problem]}
    server.answers[f"GET {PATH}"] = (422, body)
    with pytest.raises(SpecError) as caught:
        describe(server)
    assert caught.value.problems == [Problem("a.yaml", 2, 3, "no")]


def test_a_moment_of_weakness_is_waited_for(server):
    server.answers[f"GET {PATH}"] = [(500, {}), (503, {}), (200, {"version": "1"})]
    assert describe(server) == {"version": "1"}

    server.answers[f"GET {PATH}"] = (500, {"detail": "locked"})
    with pytest.raises(UnreachableError, match="answered 500 to GET /tracklayer/platform: locked"):
        describe(server)
    assert len(server.asked) == 3 + 3


def test_a_platform_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"does not answer at http://127.0.0.1:{port}") as e:
        Platform(f"http://127.0.0.1:{port}", "t").describe()
    assert e.value.exit_code == 13
    assert e.value.hint == "Start it with `tracklayer up`."


@pytest.mark.parametrize("url", ["http://", "http://[", "http://a b/", "https://no.invalid"])
def test_an_address_that_is_none(url):
    with pytest.raises(PlatformError, match="answer"):
        Platform(url, "t").describe()


def test_a_token_is_fetched_once_and_again_when_it_is_too_old(server):
    server.answers["POST /auth/token"] = [
        (201, {"access_token": "first"}),
        (201, {"access_token": "second"}),
    ]
    server.answers[f"GET {PATH}"] = lambda asked: (200 if asked.token == "second" else 401, {})
    transport = Transport(server.url + "/", lambda: ("ann", "secret"))
    for _ in range(2):
        assert transport.object("GET", PATH) == {}
    asked = [(request.method, request.token) for request in server.asked]
    assert asked == [
        ("POST", None),
        ("GET", "first"),
        ("POST", None),
        ("GET", "second"),
        ("GET", "second"),
    ]
    assert server.asked[0].json == {"username": "ann", "password": "secret"}


def test_a_password_that_is_wrong(server):
    server.answers["POST /auth/token"] = (401, {"detail": "Invalid credentials"})
    with pytest.raises(PlatformError, match="does not take"):
        Platform(server.url, lambda: ("ann", "secret")).describe()


def test_a_proxy_is_not_for_this_machine(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.answers[f"GET {PATH}"] = (200, {"version": "1"})
    assert describe(server) == {"version": "1"}
