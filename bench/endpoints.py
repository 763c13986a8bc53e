"""Servers of a model: how each is started and asked, and how long an answer takes under load.

The server has the first core, what asks it the second. Servers that are not asked stay up beside
it: none of them uses the processor then.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from bench.measure import NotMeasuredError
from bench.processes import clean_environment, family, last_lines, started, timed

Array = np.ndarray[Any, Any]

ROOT = Path(__file__).parent.parent
_WITHIN = 60.0  # seconds for a server to answer
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}

_LOAD = """
wrk.method = "POST"
{headers}
local file = io.open("body.json")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  local errors = summary.errors
  local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d %d\\n",
    summary.requests, summary.duration, latency:percentile(99), bad))
end
"""


@dataclass(frozen=True)
class Task:
    """An ONNX model, one request to it, and the right answer.

    :param inputs: by name, the batch axis first.
    :param expected: the numbers of the first output.
    """

    file: Path
    inputs: Mapping[str, Array]
    expected: Array

    @classmethod
    def of(cls, file: Path, inputs: Mapping[str, Array]) -> Task:
        """The right answer is what onnxruntime gives in this process."""
        import onnxruntime as ort

        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        return cls(file, inputs, session.run(None, dict(inputs))[0].ravel())

    @property
    def open_inference(self) -> bytes:
        """The request in the Open Inference Protocol's JSON."""
        kinds = {"f": "FP32", "i": "INT64"}
        tensors = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": kinds[array.dtype.kind],
                "data": array.ravel().tolist(),
            }
            for name, array in self.inputs.items()
        ]
        return orjson.dumps({"inputs": tensors})

    @property
    def lists(self) -> dict[str, Any]:
        """The inputs as nested lists."""
        return {name: array.tolist() for name, array in self.inputs.items()}


def first_output(document: Any) -> Any:
    """The numbers of an answer in the Open Inference Protocol's JSON."""
    return document["outputs"][0]["data"]


@dataclass
class Server:
    """A server, how it is asked, and what it has to answer.

    :param programs: command lines; all of them run while it is up.
    :param numbers: from the answer's JSON to its numbers.
    :param folder: that its programs run in.
    :param p99: 99th percentiles of its answers' times so far, ms.
    """

    programs: Sequence[Sequence[str]]
    url: str
    body: bytes
    expected: Array
    numbers: Callable[[Any], Any] = first_output
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = ROOT
    p99: list[float] = field(default_factory=list)

    def answers(self) -> bool:
        """Is there an answer?

        :raises NotMeasuredError: it is a wrong one.
        """
        headers = {"content-type": "application/json", **self.headers}
        request = urllib.request.Request(self.url, self.body, headers=headers)
        try:
            with _DIRECT.open(request, timeout=5) as response:
                said = response.read()
        except (OSError, urllib.error.URLError):
            return False
        try:
            found = np.ravel(self.numbers(orjson.loads(said))).astype(float)
            right = found.shape == self.expected.shape
            right = right and np.allclose(found, self.expected, **TOLERANCE)
        except (LookupError, TypeError, ValueError):
            right = False
        if not right:
            raise NotMeasuredError(f"the server answers wrongly: {said[:200]!r}")
        return True


class Running:
    """A server that is up."""

    def __init__(self, server: Server, processes: Sequence[int]) -> None:
        self.server = server
        self._processes = processes

    @property
    def resident(self) -> float:
        """MiB of all its processes; what they share counts for each."""
        members = [member for process in self._processes for member in family(process)]
        return sum(member.memory_info().rss for member in members) / 2**20

    def one_caller(self, seconds: float) -> float:
        """Milliseconds from a request to its answer, by a caller who sends one after the other.

        :raises NotMeasuredError: a request failed.
        """
        server, cores = self.server, os.sched_getaffinity(0)
        url = urlsplit(server.url)
        headers = {"Content-Type": "application/json", **server.headers}
        connection = http.client.HTTPConnection(url.netloc, timeout=_WITHIN)
        os.sched_setaffinity(0, {sorted(cores)[1]})
        try:
            count, begin = 0, time.perf_counter()
            while (taken := time.perf_counter() - begin) < seconds:
                connection.request("POST", url.path, server.body, headers)
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != 200:
                    raise NotMeasuredError(f"a request failed: {answer.status} {said[:200]!r}")
                count += 1
        except (OSError, http.client.HTTPException) as error:
            raise NotMeasuredError(f"a request failed: {error}") from error
        finally:
            os.sched_setaffinity(0, cores)
            connection.close()
        return 1000 * taken / count

    def load(self, connections: int, seconds: float, folder: Path) -> float:
        """Microseconds a request: the time that ``connections`` took by the requests they made.

        :param folder: for what the load needs; another measurement's can be the same.
        :raises NotMeasuredError: a request failed.
        """
        server = self.server
        headers = {"Content-Type": "application/json", **server.headers}
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        (folder / "body.json").write_bytes(server.body)
        (folder / "load.lua").write_text(_LOAD.format(headers=lines))
        log = folder / "wrk.log"
        log.unlink(missing_ok=True)
        core = sorted(os.sched_getaffinity(0))[1]
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}", "-s", "load.lua", server.url]
        argv = ["taskset", "-c", str(core), *wrk]
        timed(argv, env=clean_environment(), cwd=folder, log=log, within=seconds + 30)
        found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", log.read_text())
        if not found:
            raise NotMeasuredError(f"wrk said nothing of use: {last_lines(log)}")
        requests, duration, p99, bad = map(int, found.groups())
        if bad or not requests:
            raise NotMeasuredError(f"{bad} of {requests} requests failed")
        server.p99.append(p99 / 1000)
        return duration / requests


def need_cores() -> None:
    """
    :raises NotMeasuredError: there are no two cores, or no programs to use them.
    """
    for program in ("wrk", "taskset"):
        if not shutil.which(program):
            raise NotMeasuredError(f"{program} is not installed (Debian has a package of it)")
    if len(os.sched_getaffinity(0)) < 2:
        raise NotMeasuredError("needs two cores: one for the server, one for the load")


def pinned(argv: Sequence[object]) -> list[str]:
    """A command line that runs on the servers' core."""
    return ["taskset", "-c", str(min(os.sched_getaffinity(0))), *map(str, argv)]


@contextmanager
def running(server: Server, folder: Path) -> Iterator[Running]:
    """A server, from its first right answer on.

    :param folder: its own, for its logs.
    :raises NotMeasuredError: it does not answer, or answers wrongly.
    """
    logs = [folder / f"{index}.log" for index in range(len(server.programs))]
    env = clean_environment(**server.environment)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started(pinned(argv), env=env, cwd=server.folder, log=log))
            for argv, log in zip(server.programs, logs, strict=True)
        ]
        deadline = time.perf_counter() + _WITHIN
        while not server.answers():
            ended = any(process.poll() is not None for process in processes)
            if ended or time.perf_counter() > deadline:
                said = " | ".join(filter(None, map(last_lines, logs)))
                raise NotMeasuredError(f"the server does not answer: {said[-500:]}")
            time.sleep(0.002)
        yield Running(server, [process.pid for process in processes])
