"""The commands on the store and its sources, as a person runs them: in a terminal too."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

RUN = [sys.executable, "-c", "from tracklayer.cli.main import run; run()"]
MIB = 1024**2
PAGE = 64 << 10


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a home of this test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACKLAYER")}
    return kept | {"TRACKLAYER_HOME": str(tmp_path / "home"), "COLUMNS": "80", "TERM": "xterm"}


@pytest.fixture
def hub() -> Iterator[tuple[str, bytes]]:
    """A slow server with one file: its handle and its content."""
    content = os.urandom(6 * MIB)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            first, last = 0, len(content) - 1
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(asked[1]), int(asked[2] or last)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("ETag", '"one"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            for start in range(first, last + 1, PAGE):
                self.wfile.write(content[start : min(start + PAGE, last + 1)])
                time.sleep(0.02)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        digest = hashlib.sha256(content).hexdigest()
        yield f"http://127.0.0.1:{server.server_port}/weights.bin#sha256={digest}", content
        server.shutdown()
        thread.join()


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def in_a_terminal(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code, and everything that the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*RUN, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = rest_of(ours)
    os.close(ours)
    return process.wait(), seen.decode()


def rest_of(terminal: int) -> bytes:
    """What is still written until the other end is closed."""
    seen = b""
    with suppress(OSError):
        while part := os.read(terminal, 65536):
            seen += part
    return seen


def test_from_a_source_to_plain_files(
    environment: dict[str, str], hub: tuple[str, bytes], tmp_path: Path
) -> None:
    handle, content = hub
    code, seen = in_a_terminal(environment, "fetch", handle, "--allow", "unknown")
    assert code == 0, seen
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    assert "━" in plain  # a bar
    assert "/6.3 MB" in plain
    digest = hashlib.sha256(content).hexdigest()
    assert f"weights.bin  6.3 MB  binary  {digest[:12]}" in plain

    refused = run(environment, "fetch", handle)
    assert refused.returncode == 4
    assert "unknown" in refused.stderr  # nobody knows what random bytes are

    listed = json.loads(run(environment, "store", "ls", "--json").stdout)
    assert [source["size"] for source in listed["sources"]] == [len(content)]
    code, seen = in_a_terminal(environment, "store", "show", digest[:12])
    assert code == 0
    assert "weights.bin" in seen
    code, seen = in_a_terminal(environment, "store", "verify")
    assert (code, "Everything is as it was." in seen) == (0, True)
    assert run(environment, "store", "rotate-key").returncode == 0
    done = run(environment, "store", "export", digest[:12], str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/weights.bin").read_bytes() == content
    sealed = list((tmp_path / "home/store").rglob("*"))
    assert not any(content[:64] in path.read_bytes() for path in sealed if path.is_file())


def test_a_killed_fetch_goes_on(environment: dict[str, str], hub: tuple[str, bytes]) -> None:
    handle, content = hub
    arguments = ["fetch", handle, "--allow", "unknown"]
    with subprocess.Popen([*RUN, *arguments], env=environment, stderr=subprocess.PIPE) as process:
        drafts = Path(environment["TRACKLAYER_HOME"], "store/drafts")
        deadline = time.monotonic() + 60
        while not any(path.stat().st_blocks * 512 > MIB for path in drafts.rglob("*")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
        process.kill()
    assert json.loads(run(environment, "store", "ls", "--json").stdout)["sources"] == []
    done = run(environment, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["size"] == len(content)
    assert run(environment, "store", "verify").returncode == 0


def test_ctrl_c_in_a_fetch(environment: dict[str, str], hub: tuple[str, bytes]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*RUN, "fetch", hub[0], "--allow", "unknown"],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_the_terminal,
    ) as process:
        os.close(theirs)
        seen = b""
        while "━".encode() not in seen:
            seen += os.read(ours, 65536)
        os.write(ours, b"\x03")
        seen += rest_of(ours)
    os.close(ours)
    assert process.returncode == 130
    assert seen.decode().endswith("Interrupted.\r\n")
    assert "Traceback" not in seen.decode()


def _take_the_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
