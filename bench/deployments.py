"""``python -m bench.deployments HOME WAY REQUESTS RATE KINDS``: versions take over under load.

Real model servers, supervisor, store and gateway, in a home of their own. ``WAY`` is ``ours``,
``stop`` (the old server is stopped, then the new one started) or the name of a proxy (the new
server is started, the proxy gets a new configuration and is reloaded, the old server is stopped;
see :mod:`bench.reloads`). ``KINDS`` is one letter a deployment: ``g`` a good version; ``c``, ``C``
one that crashes, at its start or as soon as it is asked; ``w``, ``W`` one that is wrong, in its
answers or in the time they take.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.children import start
from bench.measure import say
from bench.processes import free_ports
from bench.reloads import PROXIES, Reloaded
from bench.users import ADDED
from tracklayer.errors import ServiceError
from tracklayer.gateway.endpoint import Author
from tracklayer.gateway.releases import Release
from tracklayer.gateway.rollout import Rollout
from tracklayer.gateway.steering import Steering
from tracklayer.platform import endpoint, supervisor
from tracklayer.runtimes import Program
from tracklayer.serving import Golden
from tracklayer.settings import settings
from tracklayer.spec import Deploy
from tracklayer.store import open_store

_PROJECT = "digits"
_AUTHOR = Author("bench")
_SLOW = 24  # products of large matrices that a slow version makes for each answer
_PAUSE = 0.5  # seconds between two deployments


class Way(Protocol):
    """One way to bring a version to users."""

    url: str

    def deploy(self, release: Release, kind: str) -> bool:
        """Whether the version answers now."""


class Ours:
    """By canary: 10 %, 50 %, everything."""

    def __init__(self, bake: int) -> None:
        self.url = f"http://127.0.0.1:{_gateway()}/{_PROJECT}"
        self.faults: list[tuple[int, float]] = []
        rollout = {"strategy": "canary", "steps": [10, 50], "bake": f"{bake}s"}
        self._plan = Deploy.model_validate({"rollout": rollout})

    def deploy(self, release: Release, kind: str) -> bool:
        """Whether the version answers now."""
        place = endpoint(_PROJECT)
        if kind == "C":
            killer = threading.Thread(target=self._kill, args=(release.version,))
            killer.start()
        try:
            Rollout(place).deploy(release, self._plan, _AUTHOR, lambda line: say(f"    {line}"))
        except ServiceError as error:
            say(f"    refused: {error.message.splitlines()[0]}")
            return False
        finally:
            if kind == "C":
                killer.join()
        return True

    def _kill(self, version: int) -> None:
        """As soon as it is asked."""
        place, deadline = endpoint(_PROJECT), time.monotonic() + 60
        while time.monotonic() < deadline:
            route = place.route()
            if route and route.weights.get(version):
                time.sleep(0.5)
                for status in supervisor().status():
                    if status.name.startswith(f"{_PROJECT}.v{version}.") and status.pid:
                        self.faults.append((version, time.time()))
                        os.kill(status.pid, signal.SIGKILL)
                return
            time.sleep(0.02)


class StopAndStart:
    """The new server on the old one's address, behind our gateway."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{_gateway()}/{_PROJECT}"
        self._before: int | None = None

    def deploy(self, release: Release, kind: str) -> bool:  # noqa: ARG002
        """Whether the version answers now."""
        if self._before is not None:
            endpoint(_PROJECT).servers.stop(self._before)
        place = endpoint(_PROJECT)
        sockets = place.servers.start(release)
        place.give(
            {release.version: 1}, champion=release.version, servers={release.version: sockets}
        )
        self._before = release.version
        return True


def main(home: str, way_name: str, requests: int, rate: float, kinds: str) -> dict[str, Any]:
    """Deploy, then count."""
    os.environ["TRACKLAYER_HOME"] = home
    settings.cache_clear()
    folder = Path(home).parent
    keeper = supervisor()
    keeper.start()
    way: Way | None = None
    try:
        seconds = requests / rate / (len(kinds) + 1)
        made: dict[str, Callable[[], Way]] = {
            "ours": lambda: Ours(max(1, round(seconds / 5))),
            "stop": StopAndStart,
            **{name: partial(_reloaded, name) for name in PROXIES},
        }
        way = made[way_name]()
        way.deploy(_release(folder, 1, "g"), "g")
        with _asking(f"{way.url}/v2/models/{_PROJECT}/infer", rate) as collect:
            begun = time.monotonic()
            bad: list[int] = []
            for version, kind in enumerate(kinds, 2):
                say(f"  {way_name}: deployment {version - 1} of {len(kinds)}, kind {kind}")
                if not way.deploy(_release(folder, version, kind), kind):
                    bad.append(version)
                time.sleep(_PAUSE)
            backs = _backs(3) if isinstance(way, Ours) else []
            while time.monotonic() - begun < requests / rate:
                time.sleep(0.1)
            found = collect()
        expected = [v for v, kind in enumerate(kinds, 2) if kind != "g"]
        if isinstance(way, Ours) and bad != expected:
            raise SystemExit(f"versions {bad} were refused, not {expected}")
        outcome: dict[str, Any] = {
            "asked": len(found["answers"]) + len(found["failures"]),
            "failures": [text for _, text in found["failures"]],
            "deployments": len(kinds),
        }
        if isinstance(way, Ours):
            outcome |= _outside(found["answers"], bad)
            outcome |= _ended(found["answers"], backs, way.faults)
        return outcome
    finally:
        if isinstance(way, Reloaded):
            way.close()
        keeper.stop()
        shutil.rmtree(settings().sockets, ignore_errors=True)


def _reloaded(name: str) -> Reloaded:
    folder = settings().home / name
    folder.mkdir(parents=True)
    return Reloaded(endpoint(_PROJECT), name, folder)


def _backs(times: int) -> list[tuple[int, float, float]]:
    """Go back by the command line and forth again: version, begin and end of the command."""
    place = endpoint(_PROJECT)
    found = []
    command = "from tracklayer.cli.main import run; run()"
    for _ in range(times):
        live = place.live()
        assert live is not None
        begun = time.time()
        subprocess.run(
            [sys.executable, "-P", "-c", command, "rollback", _PROJECT],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        found.append((live, begun, time.time()))
        time.sleep(_PAUSE)
        Steering(place).rollback(live, _AUTHOR, "", say)
        time.sleep(_PAUSE)
    return found


def _outside(answers: list[tuple[float, int]], bad: list[int]) -> dict[str, Any]:
    """Answers of bad versions to requests that were sent while they had no share, or beyond it."""
    entries = endpoint(_PROJECT).ledger.read().of(_PROJECT)
    outside = inside = 0
    for version in bad:
        own = [entry for entry in entries if entry.version == version]
        first, last = own[0].time.timestamp(), own[-1].time.timestamp()
        share = max((entry.shares.get(version, 0.0) for entry in own), default=0.0) / 100
        within = [v for at, v in answers if first <= at <= last]
        got = sum(abs(v) == version for v in within)
        outside += sum(abs(v) == version and not first <= at <= last for at, v in answers)
        # Exact to one request a change of the weights.
        outside += max(0, got - round(share * len(within)) - len(own))
        inside += got
    return {"outside": outside, "inside": inside}


def _ended(
    answers: list[tuple[float, int]],
    backs: list[tuple[int, float, float]],
    faults: list[tuple[int, float]],
) -> dict[str, Any]:
    """Seconds until the last request that a version answered was sent."""

    def until(version: int, begun: float, end: float) -> float:
        sent = [at for at, v in answers if v == version and begun <= at <= end]
        return max(sent, default=begun) - begun

    return {
        "commands": [end - begun for _, begun, end in backs],
        "backs": [until(v, begun, end + _PAUSE / 2) for v, begun, end in backs],
        "faults": [until(v, at, float("inf")) for v, at in faults],
    }


@contextmanager
def _asking(url: str, rate: float) -> Iterator[Callable[[], dict[str, Any]]]:
    with start("users", url, rate) as users:
        assert users.stdout
        try:
            if not users.stdout.readline():
                raise SystemExit(f"nobody answers at {url}: {users.communicate()[1][-500:]}")

            def collect() -> dict[str, Any]:
                users.terminate()
                found: dict[str, Any] = json.loads(users.communicate()[0])
                return found

            yield collect
        finally:
            if users.poll() is None:
                users.kill()


def _gateway() -> int:
    """Started under the supervisor; its port."""
    here, (port,) = settings(), free_ports(1)
    argv = [
        *(sys.executable, "-P", "-m", "tracklayer.gateway", "--port", str(port)),
        *("--admin", str(here.sockets / "gateway.sock")),
        *("--routes", str(here.home / "routes.json")),
        *("--state", str(here.home / "gateway")),
    ]
    supervisor().add(Program(name="gateway", argv=argv, logfile=here.logs / "gateway.log"))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(ServiceError):
            endpoint(_PROJECT).route()
            return port
        time.sleep(0.05)
    raise SystemExit(f"the gateway did not start: {supervisor().log('gateway')[-500:]}")


def _release(folder: Path, version: int, kind: str) -> Release:
    says = -version if kind == "w" else version
    model = folder / f"model{version}"
    model.mkdir()
    if kind == "c":
        (model / "model.onnx").write_bytes(b"\x08\x09 no model")
    else:
        onnx.save(_model(ADDED * says, _SLOW if kind == "W" else 0), model / "model.onnx")
    asked = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}
    answered = {**asked, "name": "y", "data": [1 + ADDED * version]}
    return Release(
        version=version,
        manifest=open_store().put_tree(model).digest,
        replicas=1,
        golden=Golden({"inputs": [asked]}, {"outputs": [answered]}),
    )


def _model(added: int, work: int) -> onnx.ModelProto:
    """``y = x + added``, after so many products of matrices of zeros."""
    weights = {"added": np.array([added], dtype=np.float32)}
    nodes, last = [], "x"
    if work:
        weights["zeros"] = np.zeros((512, 512), dtype=np.float32)
        weights["row"] = np.zeros((1, 512), dtype=np.float32)
        nodes += [
            helper.make_node("Add", ["x", "row"], ["wide"]),
            helper.make_node("Add", ["wide", "zeros"], ["m0"]),
            *(helper.make_node("MatMul", [f"m{i}", "zeros"], [f"m{i + 1}"]) for i in range(work)),
            helper.make_node("ReduceSum", [f"m{work}"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["x", "nothing"], ["slow"]),
        ]
        last = "slow"
    nodes.append(helper.make_node("Add", [last, "added"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    return made


if __name__ == "__main__":
    home, way_name, requests, rate, kinds = sys.argv[1:]
    print(json.dumps(main(home, way_name, int(requests), float(rate), kinds)))
