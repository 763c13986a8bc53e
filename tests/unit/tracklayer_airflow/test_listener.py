"""What happens when Airflow says that a run is over."""

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tracklayer.private import run_folder, run_folders
from tracklayer_airflow import listener


class Job:
    """What Airflow calls a component of its own, such as the scheduler."""


@pytest.mark.parametrize(
    ("component", "arguments", "swept"),
    [
        (Job(), ["airflow", "scheduler", "--skip-serve-logs"], True),
        (Job(), ["airflow", "dag-processor"], False),
        (object(), ["airflow", "scheduler"], False),  # a task, forked from the scheduler
    ],
)
def test_only_the_scheduler_sweeps_when_it_starts(
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    component: object,
    arguments: list[str],
    swept: bool,
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(listener, "_alive", lambda: {("p", "alive")})
    for run in ("alive", "over"):
        run_folder("p", run, "input").mkdir()
    listener.on_starting(component)
    left = [folder.name.partition("-")[0] for folder in run_folders("p")]
    assert left == (["alive"] if swept else ["alive", "over"])


@pytest.mark.parametrize("event", [listener.on_dag_run_success, listener.on_dag_run_failed])
def test_a_run_that_is_over_takes_along_what_it_had(own_home: Path, event: object) -> None:
    for run in ("over", "another"):
        run_folder("p", run, "input").mkdir()
    assert callable(event)
    before = set(psutil.Process().children())  # of other tests
    event(dag_run=SimpleNamespace(dag_id="p", run_id="over"), msg="")
    psutil.wait_procs(set(psutil.Process().children()) - before, timeout=60)
    assert [folder.name.partition("-")[0] for folder in run_folders("p")] == ["another"]
