"""Airflow's LocalExecutor, woken by a change instead of by a clock.

Airflow's scheduler looks for work, sleeps for ``[scheduler] scheduler_idle_sleep_time`` and looks
again. A short sleep makes a chain of steps fast and costs a sixth of a core for ever; a long one is
cheap and slow. Here the wait is in the executor, which the scheduler calls once a round, and ends
as soon as the state of a run changes, or a worker reports when all slots are taken. SQLite tells in
microseconds whether anybody wrote at all (https://sqlite.org/pragma.html#pragma_data_version). The
scheduler's own sleep is to be nearly nothing with it. With another database that sleep is all there
is.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

import psutil
from airflow.configuration import conf
from airflow.executors.local_executor import LocalExecutor
from sqlalchemy import make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import now

from tracklayer.runtimes.orphans import marked
from tracklayer.runtimes.supervisor import MARK

# What a task imports. Tasks are forked from the workers and those from the scheduler, so that what
# is imported here is imported once and not in every task.
_NEEDED = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "jinja2.ext",
    "tracklayer.gateway.rollout",
    "tracklayer.packages",
    "tracklayer.runtimes.process",
    "tracklayer.sources",
    "tracklayer.targets",
    "tracklayer.tools.terraform",
    "tracklayer.tracking",
    "tracklayer_airflow.bundle",  # and with it every operator
)

_BUSY = 1.0  # seconds at most between two rounds while a run is under way, as in stock Airflow
_IDLE = 5.0  # seconds at most otherwise: the scheduler's heartbeat, and how late a schedule may be
_STEP = 0.01  # seconds between two looks

# All that a decision of the scheduler can follow from. That a task which it has queued now runs is
# no part of it, nor anything that the scheduler itself writes when it decides nothing.
_STATE = """
SELECT r.id, t.id, CASE WHEN t.state IN ('scheduled', 'queued', 'running') THEN '' ELSE t.state END
FROM dag_run r LEFT JOIN task_instance t ON t.dag_id = r.dag_id AND t.run_id = r.run_id
WHERE r.state IN ('queued', 'running')
UNION ALL SELECT target_dag_id, asset_id, '' FROM asset_dag_run_queue
"""


@compiles(now, "sqlite")
def _now(*_: object, **__: object) -> str:
    """The time to the millisecond. SQLite's ``CURRENT_TIMESTAMP`` has whole seconds: by it a run
    that was triggered just now is to start in the future, for up to a second."""
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"  # as a column's default needs it, too


def _end_left_workers() -> None:
    """End what a killed scheduler has left: workers that would wait for ever, and tasks.

    A task is ended without a word, since what it started is not to end with it: a job goes on, and
    the next try of the task adopts it.
    """
    for process in marked(MARK, os.environ.get(MARK, "")):
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith("airflow worker --"):
                process.kill()


class PromptLocalExecutor(LocalExecutor):
    """A LocalExecutor that lets the scheduler wait until there is something to do."""

    _database: sqlite3.Connection | None = None
    _version: int | None = None
    _state: list[tuple[Any, ...]] | None = None
    _queued = False

    def start(self) -> None:
        for module in _NEEDED:
            import_module(module)
        _end_left_workers()
        # A worker would inherit the scheduler's handler, which does nothing there: told to end, an
        # idle one would stay, and a scheduler that waits for it at its own end would too.
        handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            super().start()
        finally:
            signal.signal(signal.SIGTERM, handler)
        url = make_url(conf.get("database", "sql_alchemy_conn"))
        if url.get_backend_name() == "sqlite" and url.database:
            self._database = sqlite3.connect(f"file:{url.database}?mode=ro", uri=True, timeout=30)

    def sync(self) -> None:
        self._wait()
        super().sync()

    def end(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        super().end()

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        cast(Any, super())._process_workloads(workload_list)
        self._queued = True

    def _wait(self) -> None:
        queued, self._queued = self._queued, False
        if self._database is None or queued:  # who has found work may not have found all of it
            return
        longest = _BUSY if self._state else _IDLE
        deadline = time.monotonic() + longest
        while time.monotonic() < deadline and not self._changed(self._database):
            if self.slots_available <= 0 and not self.result_queue.empty():
                return  # a slot is free again as soon as the result is read
            time.sleep(_STEP)

    def _changed(self, database: sqlite3.Connection) -> bool:
        (version,) = database.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return False
        state = database.execute(_STATE).fetchall()
        changed = state != self._state
        self._version, self._state = version, state
        return changed
