"""A connector from outside: a distribution of its own, installed and found by its entry point."""

from __future__ import annotations

import hashlib
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CONNECTOR = Path(__file__).parents[2] / "connector"
# What a program of its own does; the depot's token reaches it as a credential would.
PROGRAM = """
import json, sys
from pathlib import Path
from tracklayer.errors import TracklayerError
from tracklayer.sources import Credential, fetch
from tracklayer.store import Store

handle, folder, token, offline = sys.argv[1:]
store, said = Store(Path(folder)), []
try:
    got = fetch(
        handle,
        project=Path(folder),
        store=store,
        on_progress=said.append,
        credential=lambda kind: Credential(password=token) if kind == "depot" else None,
        offline=bool(offline),
    )
except TracklayerError as error:
    print(json.dumps({"error": str(error), "said": said}))
else:
    files = {f.path: store.open(f).read().decode() for f in got.manifest.files}
    print(json.dumps({"revision": got.revision, "cached": got.cached, "files": files,
                      "origin": got.manifest.origin, "said": said}))
"""


class Depot(socketserver.ThreadingTCPServer):
    """A depot with one collection. ``breaks``: so often it ends in the middle of a file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.releases = {"1": {"a.csv": b"1,2\n", "deep/b.csv": b"3,4\n" * 100_000}}
        self.lies: dict[str, bytes] = {}
        self.breaks = 0
        self.asked: list[str] = []
        self.address = f"depot://127.0.0.1:{self.server_address[1]}"


class Answer(socketserver.StreamRequestHandler):
    server: Depot

    def handle(self) -> None:
        depot = self.server
        token, *words = self.rfile.readline().decode().split()
        depot.asked.append(" ".join(words))
        if token != "s3cret-token" or words[1] != "flowers":
            self.wfile.write(b"-")
        elif words[0] == "RELEASE":
            self.wfile.write(b"+" + max(depot.releases).encode())
        elif words[0] == "LIST":
            for path, body in depot.releases[words[2]].items():
                digest = hashlib.sha256(body).hexdigest()
                entry = {"path": path, "size": len(body), "sha256": digest}
                self.wfile.write(b"+" if path == "a.csv" else b"")
                self.wfile.write(json.dumps(entry).encode() + b"\n")
        else:
            body = {**depot.releases[words[2]], **depot.lies}[words[3]]
            if depot.breaks and len(body) > 100:
                depot.breaks -= 1
                self.wfile.write(b"+" + body[:50_000])
                return
            self.wfile.write(b"+" + body)


@pytest.fixture
def depot() -> Iterator[Depot]:
    server = Depot()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the connector, installed as anybody would, without a network."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    command += ["--no-build-isolation", "--python", sys.executable, "--target", str(folder)]
    done = subprocess.run([*command, str(CONNECTOR)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """Runs a fetch in a process that has the connector on its path, or not."""

    def run(
        handle: str, *, token: str = "s3cret-token", offline: bool = False, there: bool = True
    ) -> dict[str, Any]:
        environment = {**os.environ, "PYTHONPATH": str(installed) if there else ""}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, handle, str(tmp_path), token, "1" if offline else ""],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "s3cret" not in done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


def test_it_is_fetched_once_and_then_from_the_store(depot: Depot, run: Run) -> None:
    first = run(f"{depot.address}/flowers")
    assert first["files"] == {"a.csv": "1,2\n", "deep/b.csv": "3,4\n" * 100_000}
    assert (first["revision"], first["cached"]) == ("1", False)
    assert first["origin"] == {"handle": f"{depot.address}/flowers", "revision": "1"}
    depot.releases["2"] = {"a.csv": b"5,6\n"}
    depot.asked.clear()
    pinned = run(f"{depot.address}/flowers@1")
    assert (pinned["cached"], pinned["files"]) == (True, first["files"])
    assert run(f"{depot.address}/flowers", offline=True)["revision"] == "1"
    assert depot.asked == []
    assert run(f"{depot.address}/flowers")["files"] == {"a.csv": "5,6\n"}


def test_a_file_that_breaks_off_is_begun_anew(depot: Depot, run: Run) -> None:
    depot.breaks = 1
    got = run(f"{depot.address}/flowers")
    assert got["files"]["deep/b.csv"] == "3,4\n" * 100_000
    assert depot.asked.count("SEND flowers 1 deep/b.csv") == 2
    assert any("deep/b.csv" in line and "again in" in line for line in got["said"])


def test_what_is_not_what_was_promised_is_not_stored(
    depot: Depot, run: Run, tmp_path: Path
) -> None:
    depot.lies["a.csv"] = b"1,3\n"
    assert "a.csv is not what was pinned" in run(f"{depot.address}/flowers")["error"]
    depot.lies["a.csv"] = b"1,2\n\n"
    assert "a.csv has 5 bytes, expected 4" in run(f"{depot.address}/flowers")["error"]
    assert not [path for path in tmp_path.rglob("objects/*/*") if path.is_file()]


def test_what_a_person_is_told(depot: Depot, run: Run) -> None:
    assert "the depot refuses it" in run(f"{depot.address}/flowers", token="wrong")["error"]
    assert "Write depot://host:port/collection" in run("depot://nowhere")["error"]
    missing = run(f"{depot.address}/flowers", there=False)["error"]
    assert "unknown kind of source" in missing
    assert "depot:" in run("depo://host/x")["error"]
