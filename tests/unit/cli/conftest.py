"""A small real HTTP server that answers as a platform would, and the command line as a call."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

Answer = tuple[int, Any]


@dataclass
class Asked:
    """A request that the server got."""

    method: str
    path: str
    query: str
    token: str | None
    body: bytes
    key: str | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """Answers by method and path: a (status, body), a list of them in turn, or a function."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, request: Asked) -> Answer:
        self.asked.append(request)
        found = self.answers.get(f"{request.method} {request.path}", (404, {"detail": "no such"}))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return found(request) if callable(found) else found


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracklayer.cli.transport._PAUSE", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: two of them wait for each other's receipt

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            key = self.headers.get("X-API-Key")
            asked = Asked(self.command, address.path, address.query, token, body, key)
            status, content = state.answer(asked)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815 - the names of http.server

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run one command line: exit code, stdout, stderr."""
    for name in ("TRACKLAYER_URL", "TRACKLAYER_TOKEN", "TRACKLAYER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        from tracklayer.cli.main import main

        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def remote(
    call: Callable[..., tuple[int, str, str]], server: Server, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """The same against the server, with a token."""
    monkeypatch.setenv("TRACKLAYER_URL", server.url)
    monkeypatch.setenv("TRACKLAYER_TOKEN", "a.token")
    return call


@pytest.fixture
def step() -> Callable[..., dict[str, Any]]:
    """A task instance as Airflow's REST API describes it."""

    def made(task: str, state: str | None, **more: Any) -> dict[str, Any]:
        started = "2026-01-01T00:00:00Z" if state not in (None, "queued") else None
        ended = "2026-01-01T00:00:02Z" if state in ("success", "failed") else None
        return {
            "task_id": task,
            "map_index": -1,
            "rendered_map_index": None,
            "state": state,
            "try_number": int(started is not None),
            "start_date": started,
            "end_date": ended,
            **more,
        }

    return made
