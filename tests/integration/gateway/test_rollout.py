"""Rollouts for real: model servers under a supervisor, a gateway, the store, and users."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tracklayer.errors import ServiceError
from tracklayer.gateway.endpoint import Author, Endpoint
from tracklayer.gateway.releases import Release
from tracklayer.gateway.rollout import Rollout
from tracklayer.gateway.steering import Steering
from tracklayer.platform import endpoint, supervisor
from tracklayer.runtimes.orphans import end_marked
from tracklayer.runtimes.supervisor import MARK
from tracklayer.serving import Golden
from tracklayer.settings import settings
from tracklayer.spec import Deploy, Gates
from tracklayer.spec import Rollout as Plan
from tracklayer.store import open_store

ANN = Author("ann", run="manual__1", commit="c" * 40)
CANARY = Deploy(rollout=Plan(strategy="canary", steps=[10, 50], bake="1s"))
LONG = Deploy(rollout=Plan(strategy="canary", steps=[20, 60], bake="60s"))
AT_ONCE = Deploy(rollout=Plan(bake="1s"))
SHORT = Deploy(rollout=Plan(strategy="canary", steps=[10], bake="1s"))
DEPLOYER = """
import json, os, signal, sys
from tracklayer.gateway.endpoint import Author
from tracklayer.gateway.releases import Release
from tracklayer.platform import rollout
from tracklayer.spec import Deploy

project, release, plan, limit = sys.argv[1:]
seen, limit = 0, int(limit)

def watch(event, arguments):
    global seen
    if event not in ("socket.connect", "os.rename", "os.remove", "fcntl.flock"):
        return
    seen += 1
    if seen == limit:
        os.kill(os.getpid(), signal.SIGKILL)

say = lambda line: print(line, flush=True)
deployer = rollout(project)
sys.addaudithook(watch)
try:
    deployer.deploy(
        Release.model_validate_json(release), Deploy.model_validate_json(plan), Author("bob"), say
    )
finally:
    say(f"effects {seen}")
"""


class Users:
    """Threads that ask without a pause. Every answer says by its value which version gave it."""

    def __init__(self, url: str, clients: int = 3, pause: float = 0.002) -> None:
        self.answers: list[tuple[float, int]] = []
        self.failures: list[str] = []
        self._url, self._pause = url, pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def count(self, since: float = 0.0) -> Counter[int]:
        return Counter(version for at, version in list(self.answers) if at >= since)

    def _run(self) -> None:
        with httpx.Client(timeout=20, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append((time.time(), ask(client, self._url)))
                except (httpx.HTTPError, ValueError) as error:
                    self.failures.append(repr(error))
                time.sleep(self._pause)


def ask(client: httpx.Client, url: str) -> int:
    """The version that answers, by what it answers: the input and 1000 times its version."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [7]}
    answer = client.post(url, json={"inputs": [tensor]})
    if answer.status_code != 200:
        raise ValueError(f"{answer.status_code} {answer.text}")
    return int(answer.json()["outputs"][0]["data"][0] - 7) // 1000


class Stage:
    """A home with a supervisor, a gateway and a store; projects and their versions."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._gateway: subprocess.Popen[str] | None = None

    def start(self) -> None:
        here = settings()
        self._gateway = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "tracklayer.gateway", "--port", str(self._port)),
                *("--admin", str(here.sockets / "gateway.sock")),
                *("--routes", str(here.home / "routes.json")),
                *("--state", str(here.home / "gateway")),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._gateway.stdout
        assert self._gateway.stdout.readline().startswith("gateway listening")

    def stop(self) -> None:
        if self._gateway:
            self._gateway.kill()
            self._gateway.communicate()

    def restart(self) -> None:
        """As after a crash: killed, away for a moment, started again."""
        self.stop()
        time.sleep(0.5)
        self.start()

    def release(self, version: int, *, says: int | None = None, work: int = 0, size: int = 1):
        """A version whose model adds 1000 times its number; or what ``says`` says, wrongly.

        :param work: how many products of large matrices it makes for each answer.
        """
        said = version if says is None else says
        return Release(
            version=version,
            manifest=self._model(1000 * said, work),
            replicas=size,
            golden=Golden(
                {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]},
                {
                    "outputs": [
                        {
                            "name": "y",
                            "shape": [1, 1],
                            "datatype": "FP32",
                            "data": [1 + 1000 * version],
                        }
                    ]
                },
            ),
        )

    def broken(self, version: int) -> Release:
        """A version whose model cannot be loaded."""
        folder = self.folder / f"broken{version}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"\x08\x09garbage")
        manifest = open_store().put_tree(folder, origin={}).digest
        return self.release(version).model_copy(update={"manifest": manifest})

    def _model(self, added: int, work: int) -> str:
        weights = {"added": np.array([added], dtype=np.float32)}
        nodes = []
        last = "x"
        if work:
            # The product of zeros is added: it takes its time and changes nothing.
            weights["zeros"] = np.zeros((512, 512), dtype=np.float32)
            weights["row"] = np.zeros((1, 512), dtype=np.float32)
            nodes.append(helper.make_node("Add", ["x", "row"], ["wide"]))
            nodes.append(helper.make_node("Add", ["wide", "zeros"], ["m0"]))
            for step in range(work):
                nodes.append(helper.make_node("MatMul", [f"m{step}", "zeros"], [f"m{step + 1}"]))
            nodes.append(helper.make_node("ReduceSum", [f"m{work}"], ["none"], keepdims=0))
            nodes.append(helper.make_node("Add", ["x", "none"], ["slow"]))
            last = "slow"
        nodes.append(helper.make_node("Add", [last, "added"], ["y"]))
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        folder = self.folder / f"model{added}-{work}"
        folder.mkdir(exist_ok=True)
        onnx.save(model, folder / "model.onnx")
        return str(open_store().put_tree(folder, origin={}).digest)

    def deploy(self, project: str, release: Release, plan: Deploy, author: Author = ANN) -> Any:
        return Rollout(endpoint(project)).deploy(release, plan, author, self.log.append)

    @contextmanager
    def deploying(self, project: str, release: Release, plan: Deploy, limit: int = 0):
        """A deployer in a process of its own; ``limit``: the effect at which it kills itself."""
        argv = [project, release.model_dump_json(), plan.model_dump_json(), str(limit)]
        with subprocess.Popen(
            [sys.executable, "-P", "-c", DEPLOYER, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def command(self, *arguments: str) -> tuple[int, str, float]:
        """``tracklayer ...``: its exit code, its output, and how long it took."""
        code = "from tracklayer.cli.main import run; run()"
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, time.monotonic() - begun

    def users(self, project: str, **options: Any) -> Users:
        return Users(f"{self.url}/{project}/v2/models/{project}/infer", **options)

    def asks(self, project: str, *, path: str | None = None) -> int:
        with httpx.Client(trust_env=False) as client:
            return ask(client, f"{self.url}/{path or project}/v2/models/{project}/infer")

    def events(self, project: str) -> list[tuple[str, int, dict[int, int]]]:
        read = endpoint(project).ledger.read()
        assert read.problems == []
        return [(e.event, e.version, e.weights) for e in read.of(project)]


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKLAYER_HOME", str(folder / "home"))
        settings.cache_clear()
        keeper = supervisor()
        found = Stage(folder, *free_ports(1))
        try:
            keeper.start()
            found.start()
            yield found
        finally:
            found.stop()
            end_marked(MARK, str(settings().sockets / "supervisor.sock"), grace=1)
    settings.cache_clear()


def until(done: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def up(place: Endpoint) -> list[int]:
    return place.servers.versions()


def test_a_canary_takes_over_step_by_step(stage: Stage) -> None:
    place = endpoint("canary")
    assert stage.deploy("canary", stage.release(1), CANARY) is None
    with stage.users("canary") as users:
        begun = time.time()
        assert stage.deploy("canary", stage.release(2, size=2), CANARY) == 1
        until(lambda: len(users.answers) > 100)
    assert users.failures == []
    ten, fifty, last = [
        e.time.timestamp()
        for e in place.ledger.read().of("canary")
        if e.version == 2 and e.event in ("step", "live") and e.weights != {1: 1}
    ][:3]
    counted = Counter(version for at, version in users.answers if ten + 0.1 < at < fifty - 0.1)
    assert counted[2] / counted.total() == pytest.approx(0.1, abs=0.03)
    counted = Counter(version for at, version in users.answers if fifty + 0.1 < at < last - 0.1)
    assert counted[2] / counted.total() == pytest.approx(0.5, abs=0.03)
    assert not any(version == 2 for at, version in users.answers if begun < at < ten - 0.1)
    assert stage.events("canary") == [
        ("deploy", 1, {}),
        ("live", 1, {1: 100}),
        ("deploy", 2, {1: 100}),
        ("step", 2, {1: 90, 2: 10}),
        ("step", 2, {1: 50, 2: 50}),
        ("live", 2, {2: 100}),
    ]
    entry = place.ledger.read().of("canary")[-1]
    assert (entry.actor, entry.run, entry.commit) == ("ann", "manual__1", "c" * 40)
    assert entry.digest == stage.release(2).manifest
    said = "\n".join(stage.log)
    assert "Version 2 is ready and right on 2 servers" in said
    assert "Step 1 of 2: version 2 gets 10% of the requests for 1 s, version 1 the rest" in said
    assert "Version 2 (10%): " in said
    assert "Version 2 answers all requests" in said
    assert stage.asks("canary") == stage.asks("canary", path="canary@2") == 2
    assert stage.asks("canary", path="canary@champion") == 2
    assert stage.asks("canary", path="canary@1") == 1
    assert (up(place), place.journal.read()) == ([1, 2], None)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda stage: stage.release(2, says=3, size=2), "was answered wrongly: output 'y'"),
        (lambda stage: stage.broken(2), "did not become ready"),
    ],
    ids=["it answers wrongly", "it does not start"],
)
def test_a_bad_version_gets_no_request(stage: Stage, bad: Any, said: str, request: Any) -> None:
    project = "bad-" + ("wrong" if "wrongly" in said else "dead")
    place = endpoint(project)
    stage.deploy(project, stage.release(1), AT_ONCE)
    with stage.users(project) as users:
        with pytest.raises(ServiceError, match=said):
            stage.deploy(project, bad(stage), CANARY)
        until(lambda: len(users.answers) > 50)
    assert users.failures == []
    assert set(users.count()) == {1}
    assert [event for event, _, _ in stage.events(project)[-2:]] == ["deploy", "abort"]
    assert said.split(":")[0] in place.ledger.read().of(project)[-1].reason
    assert (up(place), place.journal.read()) == ([1], None)
    assert stage.log[-1] == "Version 2 was taken back: version 1 answers as before"


def test_a_first_version_that_is_bad_leaves_nothing(stage: Stage) -> None:
    place = endpoint("first")
    with pytest.raises(ServiceError, match="answered wrongly"):
        stage.deploy("first", stage.release(1, says=2), CANARY)
    assert (up(place), place.route(), place.journal.read()) == ([], None, None)
    assert stage.log[-1] == "Version 1 was taken back: no version answers"
    assert stage.deploy("first", stage.release(1), CANARY) is None
    assert stage.asks("first") == 1


def test_a_slower_version_is_taken_back(stage: Stage) -> None:
    stage.deploy("slow", stage.release(1), AT_ONCE)
    plan = Deploy(rollout=Plan(strategy="canary", steps=[80], bake="60s"))
    with stage.users("slow", clients=8) as users:
        until(lambda: len(users.answers) > 100)
        with pytest.raises(ServiceError, match=r"95th percentile of its answers took .* allowed"):
            stage.deploy("slow", stage.release(2, work=10), plan)
        ended = time.time()
        time.sleep(0.5)
    assert users.failures == []
    # A request that was sent before may be answered after.
    assert set(users.count(ended + 0.3)) == {1}
    assert stage.events("slow")[-1] == ("abort", 2, {1: 100})
    assert up(endpoint("slow")) == [1]


def test_a_version_that_crashes_under_users_is_taken_back(stage: Stage) -> None:
    """Killed as soon as it is asked, and each time that the supervisor has started it again."""
    stage.deploy("crash", stage.release(1), AT_ONCE)
    begun = threading.Event()

    def crash() -> None:
        assert begun.wait(20)
        place = endpoint("crash")
        until(lambda: (route := place.route()) and route.weights.get(2))
        for status in supervisor().status():
            if status.name == "crash.v2.0" and status.pid:
                os.kill(status.pid, signal.SIGKILL)

    killer = threading.Thread(target=crash)
    killer.start()
    with stage.users("crash") as users:
        begun.set()
        with pytest.raises(ServiceError, match=r"no answer to the golden request|requests failed"):
            stage.deploy("crash", stage.release(2), LONG)
        killer.join()
        until(lambda: len(users.answers) > 100)
    assert users.failures == []
    assert stage.events("crash")[-1] == ("abort", 2, {1: 100})
    assert up(endpoint("crash")) == [1]


def test_back_and_back_again(stage: Stage) -> None:
    """Within a second, with the gateway and nothing else; further back, from the store."""
    place = endpoint("back")
    for version in (1, 2, 3):
        stage.deploy("back", stage.release(version), AT_ONCE)
    assert up(place) == [2, 3]
    begun = time.monotonic()
    assert Steering(place).rollback(None, ANN, "it is rude", stage.log.append) == 2
    assert time.monotonic() - begun < 1
    assert stage.asks("back") == stage.asks("back", path="back@champion") == 2
    entry = place.ledger.read().of("back")[-1]
    assert (entry.event, entry.version, entry.reason) == ("rollback", 2, "it is rude")
    assert up(place) == [2, 3]  # what was gone back from can be looked at

    code, output, _ = stage.command("rollback", "back", "--reason", "older")
    assert code == 0, output
    assert "The servers of version 1 are stopped: starting them from the store" in output
    assert "Version 1 of back answers all requests." in output
    assert "MLflow was not told" in output
    assert stage.asks("back") == 1

    code, output, _ = stage.command("rollback", "back")
    assert code == 11
    assert "no version of back answered before version 1" in output
    assert "Name one with --to: 2, 3." in output
    with pytest.raises(ServiceError, match="version 7 was never deployed here"):
        Steering(place).rollback(7, ANN, "", stage.log.append)
    assert Steering(place).rollback(3, ANN, "", stage.log.append) == stage.asks("back") == 3
    with pytest.raises(ServiceError, match="version 3 of back answers already"):
        Steering(place).rollback(3, ANN, "", stage.log.append)
    with pytest.raises(ServiceError, match="no version of nobody answers"):
        Steering(endpoint("nobody")).rollback(None, ANN, "", stage.log.append)

    code, output, _ = stage.command("history", "back", "--json")
    events = json.loads(output)["events"]
    assert [(e["event"], e["version"]) for e in events[-3:]] == [("rollback", v) for v in (2, 1, 3)]
    assert events[-2]["actor"] not in ("", "ann")
    code, output, _ = stage.command("history", "back", "--at", events[-2]["time"])
    assert "version 1 answered" in output
    assert "rollback of version 1 by" in output


def test_so_many_stay_up(stage: Stage) -> None:
    place = endpoint("keep")
    for version in (1, 2, 3):
        stage.deploy("keep", stage.release(version), AT_ONCE.model_copy(update={"keep": 2}))
    assert up(place) == [1, 2, 3]
    with stage.users("keep") as users:
        stage.deploy("keep", stage.release(4), AT_ONCE.model_copy(update={"keep": 0}))
        until(lambda: len(users.answers) > 50)
    assert (up(place), users.failures) == ([4], [])


def test_a_rollout_is_steered_from_another_process(stage: Stage) -> None:
    place = endpoint("steer")
    with pytest.raises(ServiceError, match="no rollout of steer is under way"):
        Steering(place).pause(ANN)
    stage.deploy("steer", stage.release(1), AT_ONCE)
    plan = Deploy(rollout=Plan(strategy="canary", steps=[20, 40], bake="1s"))
    with stage.deploying("steer", stage.release(2), plan) as process:
        until(lambda: (now := place.journal.read()) and now.share == 20)
        assert Steering(place).pause(ANN).share == 20
        code, output, _ = stage.command("pause", "steer")
        assert "Version 2 of steer stays at 20% until" in output
        time.sleep(1)
        assert process.poll() is None
        assert place.route().weights == {1: 80, 2: 20}
        assert stage.command("resume", "steer")[0] == 0
        until(lambda: place.route().weights == {1: 60, 2: 40})
        Steering(place).pause(ANN)
        code, output, _ = stage.command("promote", "steer")
        assert code == 0, output
        assert place.route().weights == {2: 100}
        said, complaint = process.communicate(timeout=20)
    assert process.returncode == 0, complaint
    assert "; paused by ann" in said
    events = [event for event, _, _ in stage.events("steer")[2:]]
    assert events == [
        *("deploy", "step", "pause", "resume", "step", "pause", "promote", "live"),
    ]
    assert (stage.asks("steer"), up(place), place.journal.read()) == (2, [1, 2], None)
    with pytest.raises(ServiceError, match="no rollout of steer is under way"):
        Steering(place).resume(ANN)


def test_going_back_ends_a_rollout(stage: Stage) -> None:
    place = endpoint("halt")
    stage.deploy("halt", stage.release(1), AT_ONCE)
    with stage.users("halt") as users, stage.deploying("halt", stage.release(2), LONG) as process:
        until(lambda: users.count()[2] > 5)
        with pytest.raises(ServiceError, match="version 2 of halt is just being deployed"):
            Steering(place).rollback(2, ANN, "", stage.log.append)
        with pytest.raises(ServiceError, match="the rollout of halt 2 is not paused"):
            Steering(place).resume(ANN)
        code, output, _ = stage.command("rollback", "halt", "--reason", "rude")
        back = time.time()
        _, complaint = process.communicate(timeout=20)
        time.sleep(0.3)
    assert code == 0, output
    assert "the rollout of version 2 was ended by " in complaint
    assert ": rude" in complaint
    assert set(users.count(back + 0.2)) == {1}
    assert users.failures == []
    assert stage.events("halt")[-1] == ("rollback", 1, {1: 100})
    assert (up(place), place.journal.read()) == ([1], None)


def test_two_rollouts_take_turns(stage: Stage) -> None:
    place = endpoint("turns")
    stage.deploy("turns", stage.release(1), AT_ONCE)
    with stage.deploying("turns", stage.release(2), SHORT) as first:
        until(lambda: (now := place.journal.read()) and now.share == 10)
        stage.deploy("turns", stage.release(3), SHORT)
        assert first.wait(20) == 0
    assert "Waiting until another rollout of version 2 by bob has ended" in stage.log
    events = [(event, version) for event, version, _ in stage.events("turns")[2:]]
    steps = ["deploy", "step", "live"]
    assert events == [(event, version) for version in (2, 3) for event in steps]
    assert up(place) == [2, 3]


def test_the_gateway_may_restart_meanwhile(stage: Stage) -> None:
    place = endpoint("again")
    stage.deploy("again", stage.release(1), AT_ONCE)
    with stage.deploying("again", stage.release(2), SHORT) as process:
        until(lambda: (now := place.journal.read()) and now.share == 10)
        stage.restart()
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 0, complaint
    assert stage.asks("again") == 2


def test_killed_at_any_moment_a_whole_version_answers_and_the_next_try_goes_on(
    stage: Stage,
) -> None:
    place = endpoint("kill")
    stage.deploy("kill", stage.release(1), AT_ONCE)
    plan = Deploy(rollout=Plan(strategy="canary", steps=[30], bake="1s", gates=Gates(golden=False)))
    with stage.deploying("kill", stage.release(2), plan) as process:
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    effects = int(said.split()[-1])
    version = 3
    with stage.users("kill", clients=1, pause=0.01) as users:
        for moment in range(1, effects + 5, max(1, effects // 5)):
            with stage.deploying("kill", stage.release(version), plan, moment) as process:
                process.communicate(timeout=60)
            # A whole version answers at once, and what is gone back to is there.
            assert stage.asks("kill") in (version - 1, version)
            killed = process.returncode == -signal.SIGKILL
            if killed and moment % 2:  # the same again, as Airflow's next try
                stage.deploy("kill", stage.release(version), plan)
                assert stage.asks("kill") == version
            elif killed:  # the next one
                version += 1
                stage.deploy("kill", stage.release(version), plan)
                assert stage.asks("kill") == version
            else:
                assert process.returncode == 0
            assert place.route().weights == {version: 100}
            assert place.journal.read() is None
            assert up(place)[-1] == version
            assert len(up(place)) == 2
            version += 1
    assert users.failures == []
    assert place.ledger.read().problems == []


def test_a_person_clears_up_after_a_dead_deployer(stage: Stage) -> None:
    place = endpoint("dead")
    stage.deploy("dead", stage.release(1), AT_ONCE)

    def killed_at(share: int, version: int) -> None:
        with stage.deploying("dead", stage.release(version), LONG) as process:
            until(lambda: (now := place.journal.read()) and now.share == share)
            process.kill()
            process.communicate()
        assert place.route().weights == {place.live(): 100 - share, version: share}

    killed_at(20, 2)
    with pytest.raises(ServiceError, match="who deployed version 2 was killed"):
        Steering(place).pause(ANN)
    Steering(place).rollback(None, ANN, "", stage.log.append)
    assert (stage.asks("dead"), up(place), place.journal.read()) == (1, [1], None)
    killed_at(20, 3)
    Steering(place).promote(ANN)
    assert (stage.asks("dead"), up(place), place.journal.read()) == (3, [1, 3], None)
    killed_at(20, 4)
    stage.deploy("dead", stage.release(5), AT_ONCE)
    assert "The rollout of version 4 was killed: version 3 answers as before" in stage.log
    assert (stage.asks("dead"), up(place)) == (5, [3, 5])


def test_what_is_kept_is_the_owners_alone(stage: Stage) -> None:
    home = settings().home
    files = [home / "ledger.jsonl", *(home / "gateway").rglob("*")]
    assert len(files) > 5
    assert [str(path) for path in files if path.stat().st_mode & 0o077] == []
