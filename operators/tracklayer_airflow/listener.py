"""When a run is over, or the scheduler starts: nothing decrypted is left behind.

Airflow imports this module into every process, each task among them: heavy imports wait for a call.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: object) -> None:
    """The scheduler starts: sweep up after whoever was killed before it could."""
    # A task starts too, forked from the scheduler with its arguments; and so does the processor.
    if type(component).__name__ != "Job" or sys.argv[1:2] != ["scheduler"]:
        return
    from tracklayer.errors import TracklayerError
    from tracklayer.platform import sweep

    try:
        sweep(_alive)
    except TracklayerError as error:
        log.error("What runs have left cannot be removed: %s", error)


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001 - Airflow's signature
    """A run has ended well."""
    _end(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:  # noqa: ARG001
    """A run has failed."""
    _end(dag_run)


def _end(dag_run: DagRun) -> None:
    # A process of its own: the scheduler forks, which a thread would not survive, and has to
    # schedule meanwhile.
    subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "tracklayer.platform.sweep"),
            *(dag_run.dag_id, dag_run.run_id),
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _alive() -> set[tuple[str, str]]:
    """The runs that Airflow has not ended."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import select

    going = (DagRunState.QUEUED, DagRunState.RUNNING)
    with create_session() as session:
        found = session.execute(select(DagRun.dag_id, DagRun.run_id).where(DagRun.state.in_(going)))
        return {(dag, run) for dag, run in found}
