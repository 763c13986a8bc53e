from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tracklayer.errors import TrackingError
from tracklayer.tracking import Tracking
from tracklayer.tracking.folder import listed
from tracklayer.tracking.rest import Rest


def test_nobody_is_there() -> None:
    with pytest.raises(TrackingError, match=r"http://\*\*\*@127\.0\.0\.1:9 cannot be reached") as e:
        Tracking("http://user:secret@127.0.0.1:9").metrics("x")
    assert "secret" not in str(e.value)
    assert "running" in (e.value.hint or "")


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "file:///tmp/x", "./mlruns", "http://"])
def test_no_address_of_a_server(uri: str) -> None:
    with pytest.raises(TrackingError, match="is no address of an MLflow server"):
        Tracking(uri)


class Odd(BaseHTTPRequestHandler):
    """A server that is not MLflow, or is broken: it answers as the path asks."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        status, body = {
            "/api/2.0/mlflow/html": (200, b"<html>a proxy's page</html>"),
            "/api/2.0/mlflow/login": (401, b'{"detail": "who are you"}'),
            "/api/2.0/mlflow/down": (503, b"going down"),
            "/api/2.0/mlflow-artifacts/artifacts": (200, b'{"files": [{"path": "../x"}]}'),
        }.get(self.path.partition("?")[0], (200, b""))
        self.send_response(status)
        # One byte more than there will be: a connection that breaks in between.
        cut = "cut" in self.path
        self.send_header("Content-Length", str(len(body) + (1 if cut else 0)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def odd() -> Iterator[Rest]:
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Rest(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("login", r"\(401\): who are you\n  Put the user into the address"),
        ("down", r"\(503\): going down"),
        ("html", "is no MLflow server, or not one that this speaks with"),
        ("cut", "cannot be reached"),
    ],
)
def test_odd_answers(odd: Rest, method: str, message: str) -> None:
    with pytest.raises(TrackingError, match=message):
        odd.get(method)


def test_a_path_out_of_the_folder_is_not_followed(odd: Rest) -> None:
    with pytest.raises(TrackingError, match=r"has a file named \.\./x"):
        listed(odd, "model")
