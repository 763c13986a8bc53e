"""What happens to a training when somebody else dies, or wants it to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

SPEC = """\
name: {name}
template: {template}
train:
  script: train.py
  hyperparameters: {{notes: {notes}, go: {go}}}
  resources: {{memory: 200MiB, timeout: 5m}}
"""
# It writes down each time that it is started, and starts a child and a daemon of its own.
SCRIPT = """\
import argparse, os, pathlib, shutil, subprocess, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--notes", type=pathlib.Path)
parser.add_argument("--go", type=pathlib.Path)
options = parser.parse_args()
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep)
daemon = subprocess.Popen(sleep, start_new_session=True)
with options.notes.open("a") as notes:
    print(os.getpid(), child.pid, daemon.pid, file=notes)
while not options.go.exists():
    time.sleep(0.1)
shutil.copy("model.onnx", os.environ["SM_MODEL_DIR"])
"""


def begin(platform: Platform, name: str, template: str, folder: Path, model: bytes) -> str:
    """Push a project and start a training, which then waits for ``folder / "go"``; the run."""
    spec = SPEC.format(
        name=name, template=template, notes=folder / "notes.txt", go=folder / "go.txt"
    )
    files: dict[str, str | bytes] = {
        "tracklayer.yaml": spec,
        "train.py": SCRIPT,
        "model.onnx": model,
    }
    platform.push(name, files)
    run = platform.trigger(name)
    platform.wait_running(name, run, "train")
    platform.until((folder / "notes.txt").exists, "the training has begun")
    return run


def started(folder: Path) -> list[list[int]]:
    """The processes of each training that was started."""
    return [[*map(int, line.split())] for line in (folder / "notes.txt").read_text().splitlines()]


def running(pids: list[int]) -> list[int]:
    def alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in pids if alive(pid)]


def test_a_killed_scheduler_does_not_train_twice(
    platform: Platform, times: Callable[[float], bytes], tmp_path: Path
) -> None:
    run = begin(platform, "patient", "train-and-deploy@1", tmp_path, times(2))

    def scheduler() -> tuple[int, str]:
        found = platform.json("status")["processes"]
        return next((p["pid"], p["state"]) for p in found if p["name"] == "scheduler")

    killed, _ = scheduler()
    workers = [child.pid for child in psutil.Process(killed).children(recursive=True)]
    os.kill(killed, signal.SIGKILL)
    platform.until(
        lambda: scheduler()[0] != killed and scheduler()[1] == "RUNNING", "another scheduler"
    )
    # The new scheduler takes the task from the dead one's hands and has it tried again.
    platform.wait_running("patient", run, "train", tried=2)
    platform.until(lambda: not running(workers), "the dead scheduler's workers have ended")
    assert running(started(tmp_path)[0]) == started(tmp_path)[0]
    (tmp_path / "go.txt").touch()
    platform.wait("patient", run)

    assert len(started(tmp_path)) == 1
    record = platform.record("patient", run)
    assert record["steps"]["train"]["attempt"] == 1
    assert len(platform.mlflow.runs_of("patient", run)) == 1
    assert platform.mlflow.aliased("patient").version == 1
    assert platform.ask("patient", 10) == ("1", 20)
    platform.until(lambda: not running(started(tmp_path)[0]), "the job has ended")


def test_a_cancelled_training_ends_with_all_its_processes(
    platform: Platform, times: Callable[[float], bytes], tmp_path: Path
) -> None:
    run = begin(platform, "cancelled", "train-and-deploy@1", tmp_path, times(2))
    (pids,) = started(tmp_path)
    assert running(pids) == pids
    answer = platform.api(
        "PATCH",
        f"/api/v2/dags/cancelled/dagRuns/{run}/taskInstances/train",
        json={"new_state": "failed"},
    )
    assert answer.is_success, answer.text
    platform.until(lambda: not running(pids), "all processes of the job have ended")
    platform.wait("cancelled", run, "failed")
    states = {name: task["state"] for name, task in platform.tasks("cancelled", run).items()}
    assert states["train"] == "failed"
    assert states["register"] == "upstream_failed"
    assert states["release"] == "success"  # what was provisioned has been given back
    assert len(started(tmp_path)) == 1

    def ended() -> bool:
        """The task says so when its job is gone; Airflow may be done with the run before that."""
        (tracked,) = platform.mlflow.runs_of("cancelled", run)
        return tracked["info"]["status"] in ("FAILED", "KILLED")

    platform.until(ended, "MLflow knows that the training has ended")
