"""What wakes the scheduler, and what does not, in a real database."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import String

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

    from tests.conftest import Remote
    from tests.integration.airflow.conftest import Airflow as _Airflow
    from tests.integration.airflow.conftest import Run as _Run
    from tracklayer_airflow.executor import PromptLocalExecutor as _Executor

IDLE, BUSY = 1.2, 0.8  # seconds; shorter than in use, so that the tests are quick
SOON = 0.6  # seconds in which a change has to be noticed, on a machine with other things to do


@pytest.fixture
def run(airflow: _Airflow, remote: Remote) -> _Run:
    remote.push({"p/tracklayer.yaml": "name: p\ntemplate: chain@1\n"})
    airflow.sync()
    return airflow.trigger("p")


@pytest.fixture
def executor(run: _Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Executor]:
    """An executor with one worker, which has seen everything that is in the database."""
    from tracklayer_airflow import executor

    monkeypatch.setattr(executor, "_IDLE", IDLE)
    monkeypatch.setattr(executor, "_BUSY", BUSY)
    started: _Executor = cast(Any, executor.PromptLocalExecutor)(parallelism=1)
    started.start()
    started.sync()
    yield started
    started.end()


def wait(executor: _Executor, meanwhile: Callable[[], object] | None = None) -> float:
    """How long one wait takes, from a change that another process makes if there is one."""
    began = time.monotonic()

    def change() -> None:
        nonlocal began
        time.sleep(0.1)
        assert meanwhile is not None
        meanwhile()
        began = time.monotonic()

    thread = threading.Thread(target=change) if meanwhile else None
    if thread:
        thread.start()
    executor.sync()
    ended = time.monotonic()
    if thread:
        thread.join()
    return ended - began


def set_state(run: _Run, state: str) -> Callable[[], None]:
    def change(row: DagRun) -> None:
        row.state = state

    return lambda: run.change(change)


def set_task(run: _Run, task: str, state: str) -> Callable[[], None]:
    def change(row: DagRun) -> None:
        next(ti for ti in row.task_instances if ti.task_id == task).state = state

    return lambda: run.change(change)


def test_the_wait_has_a_limit(executor: _Executor, run: _Run) -> None:
    assert BUSY <= wait(executor) < BUSY + SOON
    assert wait(executor, set_state(run, "success")) < SOON
    assert IDLE <= wait(executor) < IDLE + SOON


def test_the_first_look_waits_for_nothing(run: _Run) -> None:
    from tracklayer_airflow.executor import PromptLocalExecutor

    first = cast(Any, PromptLocalExecutor)(parallelism=1)
    first.start()
    try:
        assert wait(first) < SOON
    finally:
        first.end()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda run, airflow: airflow.trigger("p"), id="a new run"),
        pytest.param(lambda run, airflow: set_state(run, "success")(), id="a run that ended"),
        pytest.param(
            lambda run, airflow: set_task(run, "one", "success")(), id="a task that ended"
        ),
        pytest.param(
            lambda run, airflow: set_task(run, "one", "failed")(), id="a task that failed"
        ),
        pytest.param(
            lambda run, airflow: set_task(run, "one", "up_for_retry")(), id="one to be tried again"
        ),
        pytest.param(lambda run, airflow: queue_asset("p"), id="an asset that somebody waits for"),
    ],
)
def test_a_change_that_a_decision_follows_from_wakes(
    executor: _Executor, run: _Run, airflow: _Airflow, change: Callable[[Any, Any], object]
) -> None:
    assert wait(executor, lambda: change(run, airflow)) < SOON


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda run: write_log(), id="an entry of the audit log"),
        pytest.param(lambda run: heartbeat(run), id="a task's heartbeat"),
        pytest.param(lambda run: set_task(run, "one", "running")(), id="a queued task that runs"),
    ],
)
def test_a_write_that_nothing_follows_from_does_not(
    executor: _Executor, run: _Run, change: Callable[[Any], object]
) -> None:
    set_task(run, "one", "queued")()
    executor.sync()
    assert wait(executor, lambda: change(run)) >= BUSY - 0.3


def test_a_slot_that_gets_free_wakes(executor: _Executor, run: _Run) -> None:
    from airflow.models.taskinstancekey import TaskInstanceKey
    from airflow.utils.state import TaskInstanceState

    key = TaskInstanceKey("p", "one", run.run_id, 1, -1)
    executor.running.add(key)
    assert executor.slots_available == 0
    assert (
        wait(executor, lambda: executor.result_queue.put((key, TaskInstanceState.SUCCESS, None)))
        < SOON
    )
    assert list(executor.get_event_buffer()) == [key]
    assert executor.slots_available == 1


def test_with_another_database_it_is_the_stock_executor(
    run: _Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracklayer_airflow.executor import PromptLocalExecutor

    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://nobody@127.0.0.1:9/x")
    other = cast(Any, PromptLocalExecutor)(parallelism=1)
    other.start()
    try:
        assert wait(other) < SOON
        assert wait(other) < SOON
    finally:
        other.end()


def test_looking_writes_nothing_and_holds_nobody_up(executor: _Executor) -> None:
    held: list[float] = []

    def write() -> None:
        """Another process has the database for itself, while the executor looks at it."""
        with closing(sqlite3.connect(f"{os.environ['AIRFLOW_HOME']}/airflow.db")) as writer:
            for _ in range(5):
                began = time.monotonic()
                writer.execute("BEGIN EXCLUSIVE")
                writer.execute("UPDATE dag_run SET conf = conf")
                writer.commit()
                held.append(time.monotonic() - began)

    wait(executor, write)
    assert len(held) == 5
    assert max(held) < SOON
    assert executor._database is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        executor._database.execute("DELETE FROM dag_run")


def write_log() -> None:
    from airflow.models.log import Log
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Log(event="somebody looked"))


def heartbeat(run: _Run) -> None:
    from airflow.sdk import timezone

    def change(row: DagRun) -> None:
        for ti in row.task_instances:
            ti.last_heartbeat_at = timezone.utcnow()

    run.change(change)


def queue_asset(dag: str) -> None:
    from airflow.models.asset import AssetDagRunQueue, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        asset = AssetModel(name="q/model", uri="tracklayer://q/model", group="asset")
        session.add(asset)
        session.flush()
        session.add(AssetDagRunQueue(target_dag_id=dag, asset_id=asset.id))


def test_an_idle_worker_ends_when_it_is_told_to(executor: _Executor) -> None:
    # The scheduler has a handler by the time it starts its executor.
    executor.end()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        executor.start()
        (worker,) = executor.workers.values()
        worker.terminate()
        worker.join(10)
        assert worker.exitcode == -signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, before)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_of_this_moment_is_not_in_the_future(executor: _Executor) -> None:
    # Whole seconds, which are SQLite's own, would be wrong nine times in ten.
    assert executor
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    def ago() -> float:
        """Seconds from a moment before the query until what the database took for now."""
        begun = datetime.now(UTC)
        with create_session() as session:
            found = cast(str, session.scalar(select(func.now().cast(String))))
        return (datetime.fromisoformat(found).replace(tzinfo=UTC) - begun).total_seconds()

    assert all(-0.002 < ago() < 5 for _ in range(10))
