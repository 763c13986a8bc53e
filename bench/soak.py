"""``python bench/soak.py [--minutes 60]``: a model server under load, and its resident size over
time. Exit code 1 if it takes a tenth more in the last tenth of the time than in the first.

Half of the clients send right requests, the others wrong, cut, slow and large ones.
"""

from __future__ import annotations

import argparse
import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson
import psutil

_PATH = "/v2/models/m/infer"
_GROWTH = 1.1


def main() -> int:
    """Load until the time is over; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model")
    parser.add_argument("--request", type=Path, required=True, help="a request as JSON")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    command = [sys.executable, "-P", "-m", "tracklayer.serving", "--model", str(options.model)]
    command += ["--name", "m", "--version", "1", "--port", "0", "--timeout", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            line = server.stdout.readline()
            if not line:
                return 1
            port = int(line.rpartition(":")[2])
            return _soak(psutil.Process(server.pid), port, options)
        finally:
            server.terminate()


def _soak(server: psutil.Process, port: int, options: argparse.Namespace) -> int:
    body = options.request.read_bytes()
    orjson.loads(body)
    end = time.monotonic() + options.minutes * 60
    kinds = [_right, _right, _wrong, _cut, _right, _large, _right, _slow]
    counts = [0] * options.clients

    def client(index: int) -> None:
        kind: Callable[[int, bytes], None] = kinds[index % len(kinds)]
        while time.monotonic() < end:
            with suppress(OSError, http.client.HTTPException):
                kind(port, body)
            counts[index] += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(options.clients)]
    for thread in threads:
        thread.start()
    sizes: list[float] = []
    pause = options.minutes * 60 / 60
    while time.monotonic() < end:
        time.sleep(pause)
        sizes.append(server.memory_info().rss / 2**20)
        files = server.num_fds()
        passed = options.minutes - (end - time.monotonic()) / 60
        sys.stdout.write(
            f"{passed:6.1f} min  {sizes[-1]:7.1f} MiB  {files} files  {sum(counts)} rounds\n"
        )
        sys.stdout.flush()
    for thread in threads:
        thread.join()
    # The least of a tenth: a large body that is just being read is no growth.
    tenth = max(1, len(sizes) // 10)
    first, last = min(sizes[:tenth]), min(sizes[-tenth:])
    sys.stdout.write(f"{first:.1f} MiB in the first tenth, {last:.1f} MiB in the last\n")
    return 1 if last > first * _GROWTH else 0


def _right(port: int, body: bytes) -> None:
    """A hundred requests on one connection; all must be answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(100):
        connection.request("POST", _PATH, body)
        response = connection.getresponse()
        response.read()
        if response.status not in (200, 503):
            raise SystemExit(f"a right request got {response.status}")
    connection.close()


def _wrong(port: int, body: bytes) -> None:
    """Bodies with bytes that are something else."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(100):
        changed = bytearray(body)
        for _ in range(3):
            changed[random.randrange(len(changed))] = random.randrange(256)
        connection.request("POST", _PATH, bytes(changed))
        connection.getresponse().read()
    connection.close()


def _cut(port: int, body: bytes) -> None:
    """A request that ends in the middle."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        raw.sendall(b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (_PATH.encode(), len(body)))
        raw.sendall(body[: random.randrange(len(body))])


def _large(port: int, body: bytes) -> None:  # noqa: ARG001
    """32 MiB that are no JSON, then 100 MB that are not taken."""
    for size in (32 << 20, 100_000_000):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with suppress(OSError):
            connection.request("POST", _PATH, b"[" * size)
            connection.getresponse().read()
        connection.close()


def _slow(port: int, body: bytes) -> None:  # noqa: ARG001
    """A head that never ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(30):
            raw.sendall(b"x: y\r\n")
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
