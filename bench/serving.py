"""The model server beside others: the server on one core, the load on another, in turns."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.endpoints import Running, Server, Task, need_cores, running
from bench.frameworks import FRAMEWORKS
from bench.measure import OURS, NotMeasuredError, Options, Row, interleaved
from bench.processes import free_ports
from tracklayer.access import Keys
from tracklayer.gateway.routes import Route, save

_SERVERS = Path(__file__).parent / "servers"
_RAW, _FASTAPI, _ALONE = "a raw ASGI function", "FastAPI and pydantic", "the same, none joined"
_KEY = "with a key"
_GATEWAYS = {
    "through the gateway with a key": (),
    "through the gateway with HAProxy and a key": ("--proxy", "haproxy"),
}
"""Ways to ask with a key that the gateway checks -> its options."""

_PATH = "v2/models/m/infer"
_SECONDS = 3

_FRAMEWORK = 1 / 4
_THIN = {_RAW: 1 / 0.55, _FASTAPI: 1 / 1.8, **dict.fromkeys(FRAMEWORKS, _FRAMEWORK)}
"""Reference -> the most that a request may take, by what it takes there."""

Maker = Callable[[Path], Server]
"""Makes a server ready to be started; the folder is its own, and is not there yet."""


def run(options: Options) -> list[Row]:
    """The figure.

    :raises NotMeasuredError: there is only one core, or no ``wrk``.
    """
    need_cores()
    with tempfile.TemporaryDirectory(prefix="tracklayer-bench-") as temporary:
        figure = _Figure(Path(temporary), quick=options.quick)
        once = 1 if options.quick else None
        return [
            *figure.thin(options.pairs or once or 7),
            *figure.joined(options.pairs or once or 5),
            *figure.start(options.pairs or once or 7),
        ]


class _Figure:
    """The rows, one table after the other."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self._folder = folder
        self._seconds = 1 if quick else _SECONDS
        values = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)
        self._inputs = {"x": values}
        self._task = Task.of(_model(folder / "thin", [64, 10]), self._inputs)

    def thin(self, pairs: int) -> list[Row]:
        """Beside what people write, and what they install."""
        made: dict[str, Maker] = {
            OURS: lambda _: _ours(self._task),
            _KEY: partial(_with_key, self._task),
            **{name: partial(_behind, self._task, more) for name, more in _GATEWAYS.items()},
            **self._peers(),
        }
        what = "thin model, 8 connections"
        with ExitStack() as stack:
            up, missing = self._up(made, stack)
            samples, later = self._measured(up, 8, pairs)
        missing |= later
        rows = []
        for name, limit in _THIN.items():
            rows += _rows(what, (OURS, name), up, samples, missing, limit, pairs)
        measured = [name for name in FRAMEWORKS if samples.get(name)]
        best = [min(measured, key=lambda name: float(np.median(samples[name])))] if measured else []
        for way, name in product((_KEY, *_GATEWAYS), (_RAW, _FASTAPI, *best)):
            sides = (way, name)
            rows += _rows(f"{what}, {way}", sides, up, samples, missing, _THIN[name], pairs)
        return rows

    def joined(self, pairs: int) -> list[Row]:
        """What it is worth to join requests that wait."""
        model = _model(self._folder / "middle", [64, 2048, 2048, 2048, 10])
        task = Task.of(model, self._inputs)
        made: dict[str, Maker] = {
            OURS: lambda _: _ours(task),
            _ALONE: lambda _: _ours(task, "--batch", "1"),
        }
        with ExitStack() as stack:
            up, missing = self._up(made, stack)
            samples, later = self._measured(up, 32, pairs)
        what = "middle-sized network, 32 connections"
        return _rows(what, (OURS, _ALONE), up, samples, missing | later, 1.0, pairs)

    def start(self, pairs: int) -> list[Row]:
        """From the command to the first right answer, and what it then takes."""
        made: dict[str, Maker] = {OURS: lambda _: _ours(self._task), **self._peers()}
        memory: list[float] = []

        def once(name: str) -> float:
            place = Path(tempfile.mkdtemp(dir=self._folder))
            server = made[name](place / "server")
            begin = time.perf_counter()
            with running(server, place) as up:
                taken = time.perf_counter() - begin
                if name == OURS:
                    memory.append(up.resident)
            return taken

        samples, missing = interleaved(pairs, {name: partial(once, name) for name in made})
        what = "start to the first right answer"
        ours = samples[OURS]
        return [
            Row(what=what, unit="s", ours=ours, at_most=0.4),
            *(
                Row(
                    what=what,
                    unit="s",
                    ours=ours,
                    name=name,
                    theirs=samples[name],
                    missing=missing.get(name, ""),
                )
                for name in made
                if name != OURS
            ),
            Row(what="resident after it", unit="MiB", ours=memory, at_most=120),
        ]

    def _peers(self) -> dict[str, Maker]:
        found: dict[str, Maker] = {
            _RAW: lambda _: _script("raw.py", self._task),
            _FASTAPI: lambda _: _script("fastapi_pydantic.py", self._task),
        }
        return found | {
            name: partial(framework, self._task) for name, framework in FRAMEWORKS.items()
        }

    def _up(
        self, made: Mapping[str, Maker], stack: ExitStack
    ) -> tuple[dict[str, Running], dict[str, str]]:
        """All of them started, and why a peer is not there.

        :raises NotMeasuredError: ours is not.
        """
        found: dict[str, Running] = {}
        missing: dict[str, str] = {}
        for name, maker in made.items():
            place = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                found[name] = stack.enter_context(running(maker(place / "server"), place))
            except NotMeasuredError as error:
                if name in (OURS, _KEY, *_GATEWAYS):
                    raise
                missing[name] = str(error)
        return found, missing

    def _measured(
        self, up: Mapping[str, Running], connections: int, pairs: int
    ) -> tuple[dict[str, list[float]], dict[str, str]]:
        measures = {
            name: partial(each.load, connections, self._seconds, self._folder)
            for name, each in up.items()
        }
        return interleaved(pairs, measures, warm=1)


def _rows(
    what: str,
    sides: tuple[str, str],
    up: Mapping[str, Running],
    samples: Mapping[str, list[float]],
    missing: Mapping[str, str],
    limit: float,
    pairs: int,
) -> list[Row]:
    """Rows of the rate and of the 99th percentile, one side beside the other."""
    ours, theirs = sides
    lack = missing.get(theirs, "") or missing.get(ours, "")

    def tails(name: str) -> list[float]:
        return up[name].server.p99[-pairs:] if samples.get(name) else []

    return [
        Row(
            what=f"{what}: time a request",
            unit="µs",
            ours=samples.get(ours, []),
            name=theirs,
            theirs=samples.get(theirs, []),
            at_most=limit,
            missing=lack,
        ),
        Row(
            what=f"{what}: 99th percentile",
            unit="ms",
            ours=tails(ours),
            name=theirs,
            theirs=tails(theirs),
            at_most=1.0,
            missing=lack,
        ),
    ]


def _ours(task: Task, *more: str, headers: Mapping[str, str] | None = None) -> Server:
    (port,) = free_ports(1)
    return Server(
        [_serving(task, "--port", str(port), *more)],
        f"http://127.0.0.1:{port}/{_PATH}",
        task.open_inference,
        task.expected,
        headers=headers or {},
    )


def _with_key(task: Task, folder: Path) -> Server:
    """The server, which takes callers with keys only."""
    keys = Keys(folder / "keys.json")
    _, secret = keys.create("bench")
    return _ours(task, "--keys", str(keys.file), headers=_bearer(secret))


def _behind(task: Task, more: tuple[str, ...], folder: Path) -> Server:
    """The server behind the gateway, which takes callers with keys only; all on the one core."""
    (port,) = free_ports(1)
    folder.mkdir()
    socket, routes, state = folder / "s.sock", folder / "routes.json", folder / "state"
    save(routes, {"m": Route.of(1, [socket])})
    _, secret = Keys(state / "keys.json").create("bench")
    gateway = (
        *(sys.executable, "-P", "-m", "tracklayer.gateway", "--access", "keys"),
        *("--port", str(port), "--admin", str(folder / "a.sock")),
        *("--routes", str(routes), "--state", str(state), *more),
    )
    return Server(
        [_serving(task, "--socket", str(socket)), gateway],
        f"http://127.0.0.1:{port}/m/{_PATH}",
        task.open_inference,
        task.expected,
        headers=_bearer(secret),
    )


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _serving(task: Task, *where: str) -> list[str]:
    program = [sys.executable, "-P", "-m", "tracklayer.serving", "--model", str(task.file.parent)]
    return [*program, "--name", "m", "--version", "1", *where]


def _script(name: str, task: Task) -> Server:
    (port,) = free_ports(1)
    return Server(
        [[sys.executable, str(_SERVERS / name), str(task.file), str(port)]],
        f"http://127.0.0.1:{port}/{_PATH}",
        task.open_inference,
        task.expected,
    )


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
