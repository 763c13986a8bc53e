"""The model server beside others: the server on one core, the load on another, in turns."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import orjson
import psutil
from onnx import TensorProto, helper, numpy_helper

from bench.measure import OURS, NotMeasuredError, Options, Row, interleaved
from bench.processes import clean_environment, free_ports, last_lines, started, timed

_SERVERS = Path(__file__).parent / "servers"
_RAW, _FASTAPI, _ALONE = "a raw ASGI function", "FastAPI and pydantic", "the same, none joined"
_PATH = "/v2/models/m/infer"
_SECONDS = 3
_WITHIN = 60.0  # seconds for a server to answer

_POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
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


@dataclass
class Server:
    """How a server is started; its 99th percentiles so far, ms."""

    argv: list[str]
    port: int
    p99: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{_PATH}"


def run(options: Options) -> list[Row]:
    """The figure."""
    for program in ("wrk", "taskset"):
        if not shutil.which(program):
            raise NotMeasuredError(f"{program} is not installed (Debian has a package of it)")
    if len(os.sched_getaffinity(0)) < 2:
        raise NotMeasuredError("needs two cores: one for the server, one for the load")
    with tempfile.TemporaryDirectory(prefix="tracklayer-bench-") as temporary:
        folder = Path(temporary)
        (folder / "post.lua").write_text(_POST)
        body = {"name": "x", "shape": [1, 64], "datatype": "FP32"}
        data = np.random.default_rng(1).standard_normal(64).tolist()
        (folder / "body.json").write_bytes(orjson.dumps({"inputs": [body | {"data": data}]}))
        return [
            *_thin(folder, options.pairs or 7),
            *_joined(folder, options.pairs or 5),
            *_start(folder, options.pairs or 7),
        ]


def _thin(folder: Path, pairs: int) -> list[Row]:
    model = _model(folder / "thin", [64, 10])
    ports = free_ports(3)
    servers = {
        OURS: Server(_ours(model, ports[0]), ports[0]),
        _RAW: Server(_script("raw.py", model, ports[1]), ports[1]),
        _FASTAPI: Server(_script("fastapi_pydantic.py", model, ports[2]), ports[2]),
    }
    limits = {_RAW: 1 / 0.55, _FASTAPI: 1 / 1.8}
    return _beside("thin model, 8 connections", 8, folder, servers, limits, pairs)


def _joined(folder: Path, pairs: int) -> list[Row]:
    model = _model(folder / "middle", [64, 2048, 2048, 2048, 10])
    ports = free_ports(2)
    servers = {
        OURS: Server(_ours(model, ports[0]), ports[0]),
        _ALONE: Server(_ours(model, ports[1], "--batch", "1"), ports[1]),
    }
    what = "middle-sized network, 32 connections"
    return _beside(what, 32, folder, servers, {_ALONE: 1.0}, pairs)


def _beside(
    what: str,
    connections: int,
    folder: Path,
    servers: Mapping[str, Server],
    limits: Mapping[str, float],
    pairs: int,
) -> list[Row]:
    """Rows of the rate and of the 99th percentile, beside each reference."""
    with ExitStack() as stack:
        for server in servers.values():
            stack.enter_context(_running(server, folder))
        measures = {
            name: partial(_load, server, connections, folder) for name, server in servers.items()
        }
        samples, missing = interleaved(pairs, measures, warm=1)
    rows = []
    for name, limit in limits.items():
        lack = missing.get(name, "")
        ours, theirs = servers[OURS].p99[-pairs:], servers[name].p99[-pairs:]
        rate = Row(
            what=f"{what}: time a request",
            unit="µs",
            ours=samples[OURS],
            name=name,
            theirs=samples[name],
            at_most=limit,
            missing=lack,
        )
        tail = Row(
            what=f"{what}: 99th percentile",
            unit="ms",
            ours=ours,
            name=name,
            theirs=theirs,
            at_most=1.0,
            missing=lack,
        )
        rows += [rate, tail]
    return rows


def _start(folder: Path, pairs: int) -> list[Row]:
    """From the command to the first right answer, and what it then takes."""
    model = folder / "thin" / "model.onnx"
    seconds: list[float] = []
    memory: list[float] = []
    theirs: list[float] = []
    for _ in range(pairs):
        ports = free_ports(2)
        servers = [
            Server(_ours(model, ports[0]), ports[0]),
            Server(_script("raw.py", model, ports[1]), ports[1]),
        ]
        for server, times in zip(servers, (seconds, theirs), strict=True):
            begin = time.perf_counter()
            with _running(server, folder) as process:
                times.append(time.perf_counter() - begin)
                if times is seconds:
                    memory.append(process.memory_info().rss / 2**20)
    return [
        Row(what="start to the first right answer", unit="s", ours=seconds, at_most=0.4),
        Row(
            what="start to the first right answer",
            unit="s",
            ours=seconds,
            name=_RAW,
            theirs=theirs,
        ),
        Row(what="resident after it", unit="MiB", ours=memory, at_most=120),
    ]


@contextmanager
def _running(server: Server, folder: Path) -> Iterator[psutil.Process]:
    """A server on the first core, from its first right answer on."""
    log = folder / f"{server.port}.log"
    argv = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *server.argv]
    with started(argv, env=clean_environment(), cwd=_SERVERS.parent.parent, log=log) as process:
        deadline = time.perf_counter() + _WITHIN
        while not _answers(server, folder):
            if process.poll() is not None or time.perf_counter() > deadline:
                raise NotMeasuredError(f"the server does not answer: {last_lines(log)}")
            time.sleep(0.002)
        yield psutil.Process(process.pid)


def _answers(server: Server, folder: Path) -> bool:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(
        server.url, (folder / "body.json").read_bytes(), headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            outputs = orjson.loads(response.read())["outputs"]
    except (OSError, urllib.error.URLError):
        return False
    return len(outputs[0]["data"]) == 10


def _load(server: Server, connections: int, folder: Path) -> float:
    """Microseconds a request under load from the second core."""
    log = folder / "wrk.log"
    log.unlink(missing_ok=True)
    core = sorted(os.sched_getaffinity(0))[1]
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{_SECONDS}", "-s", "post.lua", server.url]
    argv = ["taskset", "-c", str(core), *wrk]
    timed(argv, env=clean_environment(), cwd=folder, log=log, within=_SECONDS + 30)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", log.read_text())
    if not found:
        raise NotMeasuredError(f"wrk said nothing of use: {last_lines(log)}")
    requests, duration, p99, bad = map(int, found.groups())
    if bad or not requests:
        raise NotMeasuredError(f"{bad} of {requests} requests failed")
    server.p99.append(p99 / 1000)
    return duration / requests


def _ours(model: Path, port: int, *more: str) -> list[str]:
    options = ("--name", "m", "--version", "1", "--port", str(port), *more)
    return [
        *(sys.executable, "-P", "-m", "tracklayer.serving"),
        *("--model", str(model.parent), *options),
    ]


def _script(name: str, model: Path, port: int) -> list[str]:
    return [sys.executable, str(_SERVERS / name), str(model), str(port)]


def _model(folder: Path, sizes: list[int]) -> Path:
    """A network of such layers with a softmax at the end, x [batch, 64] -> y [batch, 10]."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        weight = (random.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"z{index}"]))
        last = f"a{index}"
        final = index == len(sizes) - 2
        kind, name = ("Softmax", "y") if final else ("Relu", last)
        nodes.append(helper.make_node(kind, [f"z{index}"], [name]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [value("x", TensorProto.FLOAT, ["batch", sizes[0]])],
        [value("y", TensorProto.FLOAT, ["batch", sizes[-1]])],
        weights,
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    built.ir_version = 9
    folder.mkdir()
    onnx.save(built, folder / "model.onnx")
    return folder / "model.onnx"
