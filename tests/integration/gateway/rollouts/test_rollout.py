"""New versions take over under users who ask without a pause; worse ones are taken back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.gateway.rollouts.conftest import ANN
from tracklayer.errors import ServiceError
from tracklayer.gateway.steering import Steering
from tracklayer.platform import endpoint, supervisor
from tracklayer.settings import settings
from tracklayer.spec import Deploy, Gates
from tracklayer.spec import Rollout as Plan

if TYPE_CHECKING:
    from tests.integration.gateway.rollouts.conftest import Stage

CANARY = Deploy(rollout=Plan(strategy="canary", steps=[10, 50], bake="1s"))
LONG = Deploy(rollout=Plan(strategy="canary", steps=[20, 60], bake="60s"))
AT_ONCE = Deploy(rollout=Plan(bake="1s"))
SHORT = Deploy(rollout=Plan(strategy="canary", steps=[10], bake="1s"))


def test_a_canary_takes_over_step_by_step(stage: Stage) -> None:
    place = endpoint("canary")
    assert stage.deploy("canary", stage.release(1), CANARY) is None
    with stage.users("canary") as users:
        begun = time.time()
        assert stage.deploy("canary", stage.release(2, size=2), CANARY) == 1
        stage.until(lambda: len(users.answers) > 100)
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
    assert (place.servers.versions(), place.journal.read()) == ([1, 2], None)


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
        stage.until(lambda: len(users.answers) > 50)
    assert users.failures == []
    assert set(users.count()) == {1}
    assert [event for event, _, _ in stage.events(project)[-2:]] == ["deploy", "abort"]
    assert said.split(":")[0] in place.ledger.read().of(project)[-1].reason
    assert (place.servers.versions(), place.journal.read()) == ([1], None)
    assert stage.log[-1] == "Version 2 was taken back: version 1 answers as before"


def test_a_first_version_that_is_bad_leaves_nothing(stage: Stage) -> None:
    place = endpoint("first")
    with pytest.raises(ServiceError, match="answered wrongly"):
        stage.deploy("first", stage.release(1, says=2), CANARY)
    assert (place.servers.versions(), place.route(), place.journal.read()) == ([], None, None)
    assert stage.log[-1] == "Version 1 was taken back: no version answers"
    assert stage.deploy("first", stage.release(1), CANARY) is None
    assert stage.asks("first") == 1


def test_a_slower_version_is_taken_back(stage: Stage) -> None:
    stage.deploy("slow", stage.release(1), AT_ONCE)
    plan = Deploy(rollout=Plan(strategy="canary", steps=[80], bake="60s"))
    with stage.users("slow", clients=8) as users:
        stage.until(lambda: len(users.answers) > 100)
        with pytest.raises(ServiceError, match=r"95th percentile of its answers took .* allowed"):
            stage.deploy("slow", stage.release(2, work=10), plan)
        ended = time.time()
        time.sleep(0.5)
    assert users.failures == []
    # A request that was sent before may be answered after.
    assert set(users.count(ended + 0.3)) == {1}
    assert stage.events("slow")[-1] == ("abort", 2, {1: 100})
    assert endpoint("slow").servers.versions() == [1]


@pytest.mark.parametrize("strategy", ["canary", "rolling"])
def test_a_version_that_crashes_under_users_is_taken_back(stage: Stage, strategy: str) -> None:
    """Killed as soon as it is asked, and each time that the supervisor has started it again."""
    project = f"crash-{strategy}"
    plan = LONG if strategy == "canary" else Deploy(rollout=Plan(bake="60s"))
    stage.deploy(project, stage.release(1), AT_ONCE)
    begun = threading.Event()

    def crash() -> None:
        assert begun.wait(20)
        place = endpoint(project)
        stage.until(lambda: (route := place.route()) and route.weights.get(2))
        for status in supervisor().status():
            if status.name == f"{project}.v2.0" and status.pid:
                os.kill(status.pid, signal.SIGKILL)

    killer = threading.Thread(target=crash)
    killer.start()
    with stage.users(project) as users:
        begun.set()
        with pytest.raises(ServiceError, match=r"no answer to the golden request|requests failed"):
            stage.deploy(project, stage.release(2), plan)
        killer.join()
        stage.until(lambda: len(users.answers) > 100)
    assert users.failures == []
    assert stage.events(project)[-1] == ("abort", 2, {1: 100})
    assert endpoint(project).servers.versions() == [1]


def test_so_many_stay_up(stage: Stage) -> None:
    place = endpoint("keep")
    for version in (1, 2, 3):
        stage.deploy("keep", stage.release(version), AT_ONCE.model_copy(update={"keep": 2}))
    assert place.servers.versions() == [1, 2, 3]
    with stage.users("keep") as users:
        stage.deploy("keep", stage.release(4), AT_ONCE.model_copy(update={"keep": 0}))
        stage.until(lambda: len(users.answers) > 50)
    assert (place.servers.versions(), users.failures) == ([4], [])


def test_two_rollouts_take_turns(stage: Stage) -> None:
    place = endpoint("turns")
    stage.deploy("turns", stage.release(1), AT_ONCE)
    with stage.deploying("turns", stage.release(2), SHORT) as first:
        stage.until(lambda: (now := place.journal.read()) and now.share == 10)
        stage.deploy("turns", stage.release(3), SHORT)
        assert first.wait(20) == 0
    assert "Waiting until another rollout of version 2 by bob has ended" in stage.log
    events = [(event, version) for event, version, _ in stage.events("turns")[2:]]
    steps = ["deploy", "step", "live"]
    assert events == [(event, version) for version in (2, 3) for event in steps]
    assert place.servers.versions() == [2, 3]


def test_the_gateway_may_restart_meanwhile(stage: Stage) -> None:
    place = endpoint("again")
    stage.deploy("again", stage.release(1), AT_ONCE)
    with stage.deploying("again", stage.release(2), SHORT) as process:
        stage.until(lambda: (now := place.journal.read()) and now.share == 10)
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
            assert place.servers.versions()[-1] == version
            assert len(place.servers.versions()) == 2
            version += 1
    assert users.failures == []
    assert place.ledger.read().problems == []


def test_what_is_kept_is_the_owners_alone(stage: Stage) -> None:
    home = settings().home
    files = [home / "ledger.jsonl", *(home / "gateway").rglob("*")]
    assert len(files) > 5
    open_to_others = []
    for path in files:
        with suppress(FileNotFoundError):  # those of SQLite beside its own come and go
            if path.stat().st_mode & 0o077:
                open_to_others.append(str(path))
    assert open_to_others == []


def test_access_comes_and_goes_with_the_champion(stage: Stage) -> None:
    place = endpoint("access")

    def seen() -> str | None:
        route = place.route()
        assert route
        return route.access

    closed = stage.release(1).model_copy(update={"access": "keys"})
    stage.deploy("access", closed, AT_ONCE)
    assert seen() == "keys"
    opened = stage.release(2).model_copy(update={"access": "open"})
    with stage.deploying("access", opened, LONG) as process:
        stage.until(lambda: (now := place.journal.read()) and now.share == 20)
        assert seen() == "keys"  # not before it is live
        Steering(place).rollback(None, ANN, "", stage.log.append)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert seen() == "keys"
    stage.deploy("access", stage.release(3).model_copy(update={"access": "open"}), SHORT)
    assert seen() == "open"
    Steering(place).rollback(1, ANN, "", stage.log.append)
    assert seen() == "keys"
