"""A hop through the gateway, proxy and server on one core, load on another, in turns.

Samples are microseconds a request at full load, from ``wrk`` with 8 connections: a ratio of 2 is
half of the server's rate.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.measure import OURS, NotMeasuredError, Options, Row, interleaved
from bench.processes import clean_environment, free_ports, last_lines, started
from bench.reloads import program
from tracklayer.gateway import GatewayClient

_MODEL = "thin"
_WIDTH = 64
_ALONE, _HAPROXY = "the server alone", "HAProxy"
_AIOHTTP, _HTTPX = "an aiohttp proxy", "an httpx proxy"
_ADDED = 0.5  # milliseconds at the median
_CONNECTIONS = 8


@dataclass(frozen=True)
class _Gateway:
    """One way to run the gateway.

    :param what: it is called in the figure.
    :param limit: the most that a request may take, by what it takes at the server alone.
    :param options: its own on the command line; the first has to be one that it knows.
    :param needs: a program that has to be installed.
    """

    what: str
    limit: float
    options: tuple[str, ...] = ()
    needs: str = ""


_GATEWAYS = {
    OURS: _Gateway("the gateway", 1 / 0.3),
    "Tracklayer with HAProxy": _Gateway(
        "the gateway with HAProxy", 1 / 0.45, ("--proxy", "haproxy"), "haproxy"
    ),
}

_HAPROXY_CONFIG = """
global
    maxconn 1000
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend public
    bind 127.0.0.1:{port}
    http-request set-path %[path,regsub(^/{model}/,/)]
    default_backend servers
backend servers
    http-reuse always
    server one unix@{socket} pool-max-conn 100
"""


def run(options: Options) -> list[Row]:
    """Rows: the time of a request beside each reference, and what the hop adds at the median.

    :raises NotMeasuredError: there is no ``wrk``, or only one core.
    """
    if shutil.which("wrk") is None or shutil.which("taskset") is None:
        raise NotMeasuredError("wrk or taskset is not installed")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise NotMeasuredError("this takes two cores")
    seconds = 1 if options.quick else 5
    with tempfile.TemporaryDirectory(prefix="hop-") as name, ExitStack() as stack:
        folder = Path(name)
        script = _load_script(folder)
        urls = stack.enter_context(_running(folder, cores[0]))
        medians: dict[str, list[float]] = {each: [] for each in urls}

        def measure(what: str) -> float:
            rate, median = _wrk(urls[what], script, cores[1], seconds)
            medians[what].append(median)
            return 1e6 / rate

        pairs = options.pairs or (1 if options.quick else 5)
        measures = {name: partial(measure, name) for name in urls}
        samples, missing = interleaved(pairs, measures, warm=1)
    last = {name: values[-pairs:] for name, values in medians.items() if samples[name]}
    return [row for name in _GATEWAYS for row in _rows(name, samples, missing, last)]


def _rows(
    gateway: str,
    samples: Mapping[str, list[float]],
    missing: Mapping[str, str],
    medians: Mapping[str, list[float]],
) -> list[Row]:
    """One gateway beside each reference.

    :param medians: milliseconds of one caller's request, by side.
    """
    about = _GATEWAYS[gateway]
    what, added = f"a request by way of {about.what}", f"added at the median by {about.what}"
    if gateway not in samples:
        return [Row(what=what, unit="us", missing="it has no such option, or no HAProxy here")]
    if why := missing.get(gateway):
        return [Row(what=what, unit="us", missing=why)]
    limits = {_ALONE: about.limit, _HAPROXY: None, _AIOHTTP: None, _HTTPX: None}
    rows = [
        Row(
            what=what,
            unit="us",
            ours=samples[gateway],
            name=name,
            theirs=samples.get(name, []),
            at_most=limit,
            missing=missing.get(name, "" if name in samples else "it is not installed"),
        )
        for name, limit in limits.items()
    ]
    pairs = zip(medians[gateway], medians.get(_ALONE, []), strict=False)
    more = [ours - alone for ours, alone in pairs]
    return [*rows, Row(what=f"{added}, one caller", unit="ms", ours=more, at_most=_ADDED)]


@contextmanager
def _running(folder: Path, core: int) -> Iterator[dict[str, str]]:
    """Addresses of the server and of each proxy in front of it, all on one core."""
    model = folder / "model"
    model.mkdir()
    _save_model(model / "model.onnx")
    gateways = _gateways()
    names = (_ALONE, _HAPROXY, _AIOHTTP, _HTTPX, *gateways)
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    socket = folder / "s.sock"
    serving = ("tracklayer.serving", "--model", model, "--name", _MODEL, "--version", 1)
    homes = {name: folder / f"gateway{index}" for index, name in enumerate(gateways)}
    programs: dict[str, Sequence[object]] = {
        "server": ("-m", *serving, "--socket", socket, "--inline", 5),
        _ALONE: ("-m", *serving, "--port", ports[_ALONE], "--inline", 5),
        _AIOHTTP: ("-m", "bench.aiohttp_proxy", ports[_AIOHTTP], socket, f"/{_MODEL}"),
        _HTTPX: ("-m", "bench.httpx_proxy", ports[_HTTPX], socket, f"/{_MODEL}"),
    }
    for name, gateway in gateways.items():
        home = homes[name]
        files = ("--routes", home / "routes.json", "--state", home / "state")
        where = ("--port", ports[name], "--admin", home / "a.sock")
        programs[name] = ("-m", "tracklayer.gateway", *where, *files, *gateway.options)
    root = Path(__file__).parent.parent
    pinned: list[str] = ["taskset", "-c", str(core)]
    with ExitStack() as stack:
        for name, argv in programs.items():
            stack.enter_context(
                started(
                    [*pinned, sys.executable, *map(str, argv)],
                    env=clean_environment(),
                    cwd=root,
                    log=folder / f"{name}.log",
                )
            )
        asked = (*gateways, _ALONE, _AIOHTTP, _HTTPX)
        urls = {name: f"http://127.0.0.1:{ports[name]}/{_MODEL}" for name in asked}
        urls[_ALONE] = f"http://127.0.0.1:{ports[_ALONE]}"
        if haproxy := program("haproxy"):
            config = folder / "haproxy.cfg"
            text = _HAPROXY_CONFIG.format(port=ports[_HAPROXY], model=_MODEL, socket=socket)
            config.write_text(text)
            command = [*pinned, haproxy, "-f", str(config), "-db"]
            stack.enter_context(
                started(command, env=clean_environment(), cwd=folder, log=folder / "haproxy.log")
            )
            urls[_HAPROXY] = f"http://127.0.0.1:{ports[_HAPROXY]}/{_MODEL}"
        _wait(lambda: socket.exists(), folder / "server.log")
        for name in gateways:
            health = f"http://127.0.0.1:{ports[name]}/-/health"
            _wait(partial(_answers, health), folder / f"{name}.log")
            GatewayClient(homes[name] / "a.sock").switch(_MODEL, 1, [socket])
        for name, url in urls.items():
            _wait(partial(_answers, f"{url}/v2/health/ready"), folder / f"{name}.log")
        yield urls


def _gateways() -> dict[str, _Gateway]:
    """Those that run here."""
    argv = [sys.executable, "-P", "-m", "tracklayer.gateway", "--help"]
    help_ = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return {
        name: gateway
        for name, gateway in _GATEWAYS.items()
        if (not gateway.options or gateway.options[0] in help_)
        and (not gateway.needs or program(gateway.needs))
    }


def _wrk(url: str, script: Path, core: int, seconds: float) -> tuple[float, float]:
    """Requests a second with all connections, and the median in milliseconds with one.

    :raises NotMeasuredError: a request failed.
    """
    path = f"{url}/v2/models/{_MODEL}/infer"
    outcomes = []
    for connections, length in ((_CONNECTIONS, seconds), (1, max(1, seconds / 2))):
        argv = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{length:.0f}s"]
        argv += ["--latency", "-s", str(script), path]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            raise NotMeasuredError(f"requests to {url} failed: {done.stdout[-300:]}")
        outcomes.append(done.stdout)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", outcomes[0])
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", outcomes[1])
    assert rate is not None
    assert median is not None
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[median[2]]
    return float(rate[1]), float(median[1]) * scale


def _load_script(folder: Path) -> Path:
    data = [round(float(value), 4) for value in np.random.default_rng(0).normal(size=_WIDTH)]
    tensor = {"name": "x", "shape": [1, _WIDTH], "datatype": "FP32", "data": data}
    body = json.dumps({"inputs": [tensor]})
    script = folder / "load.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f"wrk.body = [[{body}]]\n"
    )
    return script


def _save_model(path: Path) -> None:
    weights = np.random.default_rng(1).normal(size=(_WIDTH, 10)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", _WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _wait(ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        if time.monotonic() > deadline:
            raise NotMeasuredError(f"{log.stem} does not answer: {last_lines(log)}")
        time.sleep(0.05)
