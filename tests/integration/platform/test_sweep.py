"""What a run has left goes when it is over: folders, references, jobs."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tracklayer.errors import JobError
from tracklayer.platform.sweep import end_run, sweep
from tracklayer.private import run_folder, run_folders, run_name
from tracklayer.runtimes import Job, ProcessRuntime
from tracklayer.store import open_store


@pytest.fixture
def runs(own_home: Path, tmp_path: Path) -> list[str]:
    """Two runs of a project, each with a folder and a tree in the store."""
    store = open_store()
    for run in ("one", "two"):
        folder = run_folder("p", run, "input")
        folder.mkdir()
        (folder / "data").write_text(run)
        tree = store.put_tree(folder)
        store.set_ref(f"runs/p/{run_name(run)}/fetch-data", tree)
    store.set_ref("deployments/p/1", tree)
    return ["one", "two"]


def left() -> tuple[list[str], list[str]]:
    """Whose folders there are, and what the store is asked to keep."""
    names = [folder.name.partition("-")[0] for folder in run_folders("p")]
    return names, [ref.name for ref in open_store().refs()]


def test_one_run(runs: list[str]) -> None:
    end_run("p", "one")
    kept = f"runs/p/{run_name('two')}/fetch-data"
    assert left() == (["two"], ["deployments/p/1", kept])
    end_run("p", "one")
    end_run("nobody", "none")
    assert left() == (["two"], ["deployments/p/1", kept])


def test_all_that_are_over(runs: list[str]) -> None:
    asked = []

    def alive() -> set[tuple[str, str]]:
        # Whoever begins now is not known to the sweep, and keeps what it has.
        run_folder("p", "newer", "input").mkdir()
        asked.append(1)
        return {("p", "two")}

    sweep(alive)
    assert asked == [1]
    assert left() == (
        ["newer", "two"],
        ["deployments/p/1", f"runs/p/{run_name('two')}/fetch-data"],
    )
    assert open_store().collect().kept


def test_a_job_that_still_runs_is_ended(own_home: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "script.py").write_text("import time\ntime.sleep(600)\n")
    job = Job(
        name="p",
        folder=run_folder("p", "one", "job-train"),
        argv=["script.py"],
        code=code,
        python=Path(sys.executable),
        grace=1,
    )
    with ThreadPoolExecutor(1) as waiting:
        outcome = waiting.submit(ProcessRuntime().run, job)
        while not ProcessRuntime.running(job.folder):
            time.sleep(0.05)
        end_run("p", "one")
        assert isinstance(outcome.exception(timeout=30), JobError)
    assert ProcessRuntime.running(tmp_path) == []
    assert run_folders("p") == []
