"""Versions that take over by steps, and a person who goes back: with Airflow, MLflow and users."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

PLAN = "rollout: {strategy: canary, steps: [10, 40], bake: BAKE}"
SPEC = f"""\
name: taking-over
template: serve@1
sources: {{model: path:model.onnx}}
deploy: {{keep: 2, {PLAN}}}
"""


def test_by_steps_and_back_again(platform: Platform, times: Callable[[float], bytes]) -> None:
    answers: list[tuple[str, float]] = []
    failures: list[str] = []
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            try:
                answers.append(platform.ask("taking-over", 10))
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is a failure
                failures.append(repr(error))
            time.sleep(0.02)

    def deploy(factor: int, bake: str) -> str:
        spec = SPEC.replace("BAKE", bake)
        files: dict[str, str | bytes] = {"tracklayer.yaml": spec, "model.onnx": times(factor)}
        platform.push("taking-over", files)
        return platform.trigger("taking-over")

    platform.wait("taking-over", deploy(3, "2s"))
    users = threading.Thread(target=use)
    users.start()
    try:
        second = deploy(4, "2s")
        platform.wait("taking-over", second)
        assert platform.ask("taking-over", 10) == ("2", 40)
        assert platform.mlflow.aliased("taking-over").version == 2
        log = platform.log_text("taking-over", second, "deploy")
        assert "Step 1 of 2: version 2 gets 10% of the requests for 2 s, version 1 the rest" in log
        assert "Version 2 (40%): " in log
        assert "Version 2 answers all requests" in log

        # Somebody does not like the third one, while it is being tried.
        third = deploy(5, "10m")
        platform.until(lambda: ("3", 50) in answers[-50:], "version 3 gets requests")
        platform.tracklayer("pause", "taking-over")
        said = platform.tracklayer("rollback", "taking-over", "--reason", "five is odd")
        assert "Version 2 of taking-over answers all requests." in said.stdout
        back = len(answers) + 2
        platform.wait("taking-over", third, "failed")
        tasks = platform.tasks("taking-over", third)
        assert [name for name, task in tasks.items() if task["state"] == "failed"] == ["deploy"]
        assert tasks["deploy"]["try_number"] == 1
        entries = platform.log("taking-over", third, "deploy")
        errors = [entry["event"] for entry in entries if entry.get("level") == "error"]
        assert "the rollout of version 3 was ended by" in errors[0]
        assert errors[0].endswith(": five is odd")
        assert not any("error_detail" in entry for entry in entries)
        platform.until(lambda: failures or len(answers) > back + 20, "users go on")
        assert failures == []
        assert {version for version, _ in answers[back:]} == {"2"}

        # And then not the second one either.
        platform.tracklayer("rollback", "taking-over")
        assert platform.ask("taking-over", 10) == ("1", 30)
        assert platform.mlflow.aliased("taking-over").version == 1
    finally:
        stop.set()
        users.join()
    assert failures == []
    assert {(version, value) for version, value in answers} == {("1", 30), ("2", 40), ("3", 50)}

    found = platform.json("history", "taking-over")
    assert found["problems"] == []
    events = [(event["event"], event["version"]) for event in found["events"]]
    assert events == [
        *(("deploy", 1), ("live", 1)),
        *(("deploy", 2), ("step", 2), ("step", 2), ("live", 2)),
        *(("deploy", 3), ("step", 3), ("pause", 3), ("rollback", 2), ("rollback", 1)),
    ]
    live = found["events"][5]
    assert (live["run"], live["actor"]) == (second, "admin")
    assert live["commit"] == platform.record("taking-over", second)["commit"]
    registered = platform.record("taking-over", second)["steps"]["register"]
    assert live["digest"] == registered["manifest"]
    at = datetime.fromisoformat(live["time"]) - timedelta(milliseconds=1)
    then = json.loads(
        platform.tracklayer("history", "taking-over", "--at", at.isoformat(), "--json").stdout
    )
    assert then["shares"] == {"1": 60, "2": 40}
