"""Trainings that go wrong, each in its own way: one clear message, and the endpoint stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

PROJECTS = ("steady", "solid")  # two of a kind, since the runs of one wait for each other
SPEC = """\
name: NAME
template: lean@1
packages: {requirements: []}
train:
  script: train.py
  hyperparameters: {way: well, accuracy: 0.9}
  metrics: {accuracy: 'accuracy (\\S+)'}
  resources: {memory: 200MiB, timeout: 8s}
evaluate: {metric: accuracy, minimum: 0.5, no_worse_than_champion: 0.05}
"""
SCRIPT = """\
import argparse, os, pathlib, pickle, shutil, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--way")
parser.add_argument("--accuracy")
options = parser.parse_args()
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
print("accuracy", "nan" if options.way == "diverges" else options.accuracy, flush=True)
if options.way == "exits":
    sys.exit(3)
if options.way == "pickles":
    (model / "model.pkl").write_bytes(pickle.dumps({"weights": [1.0]}))
elif options.way == "sleeps":
    time.sleep(300)
elif options.way == "grows":
    memory = [b"x" * 2**20 for _ in range(400)]
    time.sleep(300)
elif options.way != "leaves-nothing":
    shutil.copy("model.onnx", model)
"""


@dataclass(frozen=True)
class Case:
    """One way to go wrong: what the run is started with, and what is said at which step."""

    step: str
    said: str
    conf: dict[str, Any] = field(default_factory=dict)
    spec: str | None = None


CASES = {
    "the script exits with 3": Case("train", "ended with exit code 3", {"way": "exits"}),
    "it leaves no model": Case("train", "script left no model", {"way": "leaves-nothing"}),
    "it leaves a pickle": Case("train", "model.pkl is a pickle", {"way": "pickles"}),
    "the metric is NaN": Case(
        "evaluate", "`accuracy` is nan, which is no finite number", {"way": "diverges"}
    ),
    "the metric is below the minimum": Case(
        "evaluate", "accuracy 0.4 is below the minimum 0.5", {"accuracy": 0.4}
    ),
    "it is worse than the champion": Case(
        "evaluate", "worse than the champion's 0.9 by 0.1", {"accuracy": 0.8}
    ),
    "it takes too long": Case("train", "passed its time limit of 8s", {"way": "sleeps"}),
    "it takes too much memory": Case("train", "its limit is 200 MiB", {"way": "grows"}),
    "its requirements cannot be resolved": Case(
        "packages",
        "numpy==0.0.1",
        spec=SPEC.replace("[]", "[numpy==0.0.1]"),
    ),
    "the script is not there": Case(
        "train",
        "absent.py",
        spec=SPEC.replace("script: train.py", "script: absent.py"),
    ),
}


@pytest.fixture(scope="module")
def runs(platform: Platform, times: Callable[[float], bytes]) -> dict[str, tuple[str, str]]:
    """Each case's project and run: in each project a first run has gone well, all others begin."""
    for project in PROJECTS:
        spec = SPEC.replace("NAME", project)
        files: dict[str, str | bytes] = {
            "tracklayer.yaml": spec,
            "train.py": SCRIPT,
            "model.onnx": times(2),
        }
        platform.push(project, files)
    first = {project: platform.trigger(project) for project in PROJECTS}
    for project, run in first.items():
        platform.wait(project, run)
    found = {}
    for project, (name, case) in zip(cycle(PROJECTS), CASES.items(), strict=False):
        if case.spec:
            platform.push(project, {"tracklayer.yaml": case.spec.replace("NAME", project)})
        found[name] = (project, platform.trigger(project, **case.conf))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_failure_is_told_and_hurts_nobody(
    platform: Platform, runs: dict[str, tuple[str, str]], name: str
) -> None:
    case, (project, run) = CASES[name], runs[name]
    platform.wait(project, run, "failed")
    tasks = platform.tasks(project, run)
    assert [found for found, task in tasks.items() if task["state"] == "failed"] == [case.step]
    assert tasks[case.step]["try_number"] == 1  # to try it again would change nothing
    log = platform.log(project, run, case.step)
    said = [entry["event"] for entry in log if entry.get("level") == "error"]
    assert case.said in "\n".join(said)
    assert not any("error_detail" in entry or "Traceback" in entry["event"] for entry in log)
    assert platform.ask(project, 10) == ("1", 20)
    tracked = platform.mlflow.runs_of(project, run)
    assert len(tracked) == (case.step != "packages")
    assert all(found["info"]["status"] == "FAILED" for found in tracked)


def test_the_command_line_tells_the_same(
    platform: Platform, runs: dict[str, tuple[str, str]]
) -> None:
    for project, run in runs.values():
        platform.wait(project, run, "failed")
    platform.push("steady", {"tracklayer.yaml": SPEC.replace("NAME", "steady")})
    command = ("run", "steady", "--follow")
    done = platform.tracklayer(*command, "--set", "way=leaves-nothing", fails=8)
    assert "failed at the step train:\nscript left no model" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    failed = platform.json(*command, "--set", "way=exits", fails=8)
    assert failed["state"] == "failed"
    assert failed["error"]["step"] == "train"
    assert "ended with exit code 3" in failed["error"]["message"]
    wrong = platform.tracklayer(*command, "--set", "wey=exits", fails=3)
    assert "Did you mean way?" in wrong.stderr
