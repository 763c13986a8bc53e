"""``python -m bench.fuzz``: malformed requests to a model server, by all its protocols.

Every answer has to be a refusal (4xx, or gRPC's codes for it) with a message for a person; none
may be a fault of the server, show a trace, or make it larger. Exit code 1 if one does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil

from bench.echo import save
from bench.malformed import Malformed, malformed, valid

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
}
_WARM = 0.2
"""Part of the requests after which the server is as large as it gets."""

_GROWTH = 16 << 20
"""Bytes that it may grow afterwards: the allocator's fragments, not ours."""

_LONGEST = 2000
"""Characters of a message that a person reads."""


@dataclass
class Found:
    """What a run has seen."""

    count: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    grown: int = 0


def main() -> int:
    """Exit code 0: everything was refused as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="requests")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same requests")
    parser.add_argument("--only", type=int, help="send the request of this number and show it")
    options = parser.parse_args()
    if options.only is not None:
        return _show(malformed(options.seed, options.only))
    found = run(options.count, options.seed)
    print(
        json.dumps(
            {
                "count": found.count,
                "statuses": dict(sorted(found.statuses.items())),
                "kinds": dict(sorted(found.kinds.items())),
                "grown": found.grown,
                "wrong": found.wrong[:20],
            },
            indent=1,
        )
    )
    return 1 if found.wrong else 0


def run(count: int, seed: int) -> Found:
    """Send so many requests to a new server."""
    found = Found()
    with served() as (server, ask):
        for request in valid():
            status, answer = ask(request)
            if status != 200:
                found.wrong.append(f"a valid request of {request.path} got {status}: {answer}")
        before = 0
        for number in range(count):
            if number == int(count * _WARM):
                before = server.memory_info().rss
            request = malformed(seed, number)
            status, answer = ask(request)
            found.count += 1
            found.statuses[status] += 1
            found.kinds[request.what] += 1
            if fault := fault_of(request, status, answer):
                found.wrong.append(f"--seed {seed} --only {number} ({request.what}): {fault}")
        found.grown = server.memory_info().rss - before
        if found.grown > _GROWTH:
            found.wrong.append(f"the server grew by {found.grown >> 20} MiB")
        for request in valid():
            status, answer = ask(request)
            if status != 200:
                found.wrong.append(f"afterwards a valid request got {status}: {answer}")
    return found


def fault_of(request: Malformed, status: int, answer: str) -> str | None:
    """What is wrong with an answer."""
    if status == 200:
        return "it was answered" if request.refused else None
    if not 400 <= status < 500:
        return f"status {status}: {answer[:300]}"
    if request.path is not None:
        try:
            answer = json.loads(answer)["error"]
        except (ValueError, LookupError, TypeError):
            return f"no message in {answer[:300]!r}"
    if type(answer) is not str or not 10 <= len(answer) <= _LONGEST:
        return f"no message that a person reads: {str(answer)[:300]!r}"
    if "Traceback" in answer or 'File "' in answer:
        return f"a trace: {answer[:300]}"
    return None


class Ask:
    """Sends requests, one after the other."""

    def __init__(self, host: str, channel: grpc.Channel) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=30)
        self._call = channel.unary_unary(_METHOD)

    def __call__(self, request: Malformed) -> tuple[int, str]:
        """HTTP status, or that which gRPC's code is like; the body or gRPC's message."""
        if request.path is None:
            return self._grpc(request.body)
        headers = {"content-type": "application/json"} | request.headers
        self._connection.request("POST", request.path, request.body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()

    def _grpc(self, body: bytes) -> tuple[int, str]:
        try:
            self._call(body, timeout=30)
        except grpc.RpcError as error:
            call: Any = error
            return _REFUSALS.get(call.code(), 500), f"{call.details()}"
        return 200, ""


@contextmanager
def served() -> Iterator[tuple[psutil.Process, Ask]]:
    """A server of the model that gives back its inputs.

    :raises RuntimeError: at its end, if it said something on its standard error.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        save(Path(folder))
        command = [
            *(sys.executable, "-m", "tracklayer.serving", "--model", folder, "--name", "m"),
            *("--version", "1", "--port", "0", "--grpc", "127.0.0.1:0"),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        try:
            address = process.stdout.readline().split()[-1].removeprefix("http://")
            with grpc.insecure_channel(process.stdout.readline().split()[-1]) as channel:
                yield psutil.Process(process.pid), Ask(address, channel)
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
        errors.seek(0)
        if said := errors.read():
            raise RuntimeError(f"the server said: {said[:2000]}")


def _show(request: Malformed) -> int:
    print(request.what, request.path, request.headers)
    print(request.body[:3000])
    with served() as (_, ask):
        status, answer = ask(request)
    print(status, answer[:3000])
    fault = fault_of(request, status, answer)
    print(fault or "as it has to be")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
