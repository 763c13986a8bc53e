"""A person goes back, and steers a rollout that is under way."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import ServiceError
from tracklayer.gateway.endpoint import Author
from tracklayer.gateway.steering import Steering
from tracklayer.platform import endpoint
from tracklayer.spec import Deploy
from tracklayer.spec import Rollout as Plan

if TYPE_CHECKING:
    from tests.integration.gateway.rollouts.conftest import Stage
    from tracklayer.gateway.releases import Release

ANN = Author("ann", run="manual__1", commit="c" * 40)
AT_ONCE = Deploy(rollout=Plan(bake="1s"))
LONG = Deploy(rollout=Plan(strategy="canary", steps=[20, 60], bake="60s"))


def test_back_and_back_again(stage: Stage) -> None:
    """Within a second, with the gateway and nothing else; further back, from the store."""
    place = endpoint("back")
    for version in (1, 2, 3):
        stage.deploy("back", stage.release(version), AT_ONCE)
    assert place.servers.versions() == [2, 3]
    begun = time.monotonic()
    assert Steering(place).rollback(None, ANN, "it is rude", stage.log.append) == 2
    assert time.monotonic() - begun < 1
    assert stage.asks("back") == stage.asks("back", path="back@champion") == 2
    entry = place.ledger.read().of("back")[-1]
    assert (entry.event, entry.version, entry.reason) == ("rollback", 2, "it is rude")
    assert place.servers.versions() == [2, 3]  # what was gone back from can be looked at

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


def test_a_rollback_that_takes_its_time_undoes_no_newer_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1 has to be started; before it is, somebody else goes back to version 2."""
    place = endpoint("late")
    for version in (1, 2, 3):
        stage.deploy("late", stage.release(version), AT_ONCE)
    begin = place.servers.start

    def start(release: Release) -> list[Path]:
        started = begin(release)
        Steering(endpoint("late")).rollback(2, ANN, "", stage.log.append)
        return started

    monkeypatch.setattr(place.servers, "start", start)
    with pytest.raises(ServiceError, match="version 2 of late answers since a moment ago"):
        Steering(place).rollback(1, ANN, "", stage.log.append)
    assert (stage.asks("late"), place.servers.versions()) == (2, [2, 3])


def test_names_that_no_project_has(stage: Stage) -> None:
    for name in ("A/b", "../../zz", "digits@3"):
        for command in ("rollback", "promote", "pause", "resume"):
            code, output, _ = stage.command(command, name)
            assert code == 3, output
            assert f"{name!r} cannot be the name of a project" in output


def test_a_rollout_is_steered_from_another_process(stage: Stage) -> None:
    place = endpoint("steer")
    with pytest.raises(ServiceError, match="no rollout of steer is under way"):
        Steering(place).pause(ANN)
    stage.deploy("steer", stage.release(1), AT_ONCE)
    plan = Deploy(rollout=Plan(strategy="canary", steps=[20, 40], bake="1s"))
    with stage.deploying("steer", stage.release(2), plan) as process:
        stage.until(lambda: (now := place.journal.read()) and now.share == 20)
        assert Steering(place).pause(ANN).share == 20
        code, output, _ = stage.command("pause", "steer")
        assert "Version 2 of steer stays at 20% until" in output
        time.sleep(1)
        assert process.poll() is None
        assert place.route().weights == {1: 80, 2: 20}
        assert stage.command("resume", "steer")[0] == 0
        stage.until(lambda: place.route().weights == {1: 60, 2: 40})
        Steering(place).pause(ANN)
        code, output, _ = stage.command("promote", "steer")
        assert (code, output) == (0, "Version 2 of steer answers all requests.\n")
        assert place.route().weights == {2: 100}
        said, complaint = process.communicate(timeout=20)
    assert process.returncode == 0, complaint
    assert "; paused by ann" in said
    events = [event for event, _, _ in stage.events("steer")[2:]]
    assert events == [
        *("deploy", "step", "pause", "resume", "step", "pause", "promote", "live"),
    ]
    assert (stage.asks("steer"), place.servers.versions(), place.journal.read()) == (
        2,
        [1, 2],
        None,
    )
    with pytest.raises(ServiceError, match="no rollout of steer is under way"):
        Steering(place).resume(ANN)


def test_a_version_that_is_not_ready_yet_is_promoted_when_it_is(stage: Stage) -> None:
    place = endpoint("soon")
    stage.deploy("soon", stage.release(1), AT_ONCE)
    with stage.users("soon") as users, stage.deploying("soon", stage.release(2), LONG) as process:
        stage.until(place.journal.read)
        code, output, _ = stage.command("promote", "soon")
        assert code == 0, output
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 0, complaint
    assert users.failures == []
    # It may have become ready while the command started.
    expected = "gets all requests as soon as it is proved right", "answers all requests"
    assert any(text in output for text in expected), output
    assert stage.asks("soon") == 2
    assert stage.events("soon")[-1] == ("live", 2, {2: 100})


def test_a_bad_version_is_not_promoted_before_it_is_proved(stage: Stage) -> None:
    place = endpoint("never")
    stage.deploy("never", stage.release(1), AT_ONCE)
    with stage.deploying("never", stage.release(2, says=3), LONG) as process:
        stage.until(place.journal.read)
        assert Steering(place).promote(ANN) == (2, False)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "was answered wrongly" in complaint
    assert stage.asks("never") == 1
    assert (place.servers.versions(), place.journal.read()) == ([1], None)


def test_going_back_ends_a_rollout(stage: Stage) -> None:
    place = endpoint("halt")
    stage.deploy("halt", stage.release(1), AT_ONCE)
    with stage.users("halt") as users, stage.deploying("halt", stage.release(2), LONG) as process:
        stage.until(lambda: users.count()[2] > 5)
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
    assert (place.servers.versions(), place.journal.read()) == ([1], None)


def test_a_person_clears_up_after_a_dead_deployer(stage: Stage) -> None:
    place = endpoint("dead")
    stage.deploy("dead", stage.release(1), AT_ONCE)

    def killed_at(share: int, version: int) -> None:
        with stage.deploying("dead", stage.release(version), LONG) as process:
            stage.until(lambda: (now := place.journal.read()) and now.share == share)
            process.kill()
            process.communicate()
        assert place.route().weights == {place.live(): 100 - share, version: share}

    killed_at(20, 2)
    with pytest.raises(ServiceError, match="who deployed version 2 was killed"):
        Steering(place).pause(ANN)
    Steering(place).rollback(None, ANN, "", stage.log.append)
    assert (stage.asks("dead"), place.servers.versions(), place.journal.read()) == (1, [1], None)
    killed_at(20, 3)
    assert Steering(place).promote(ANN) == (3, True)
    assert (stage.asks("dead"), place.servers.versions(), place.journal.read()) == (3, [1, 3], None)
    killed_at(20, 4)
    stage.deploy("dead", stage.release(5), AT_ONCE)
    assert "The rollout of version 4 was killed: version 3 answers as before" in stage.log
    assert (stage.asks("dead"), place.servers.versions()) == (5, [3, 5])
