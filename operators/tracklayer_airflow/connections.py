"""Airflow's connections, from any process: a task, a server of Airflow's, or one beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tracklayer.errors import PlatformError
from tracklayer.settings import settings
from tracklayer.sources import Credential

_SERVER = "_AIRFLOW_PROCESS_CONTEXT"  # "server" where Airflow's database may be asked directly
_SECONDS = 120


def find(conn_id: str) -> Credential | None:
    """Login, password and extra of a connection; None if there is no such connection.

    A task asks Airflow's API, a server of Airflow's the database. Any other process (the command
    line, a model server) has a child do that, which takes about 4 seconds: Airflow is too large
    to load for it. All look first into ``AIRFLOW_CONN_<ID>`` and into a secrets backend, if
    Airflow is configured to have one.

    :raises PlatformError: it is not for this task, or Airflow cannot be asked.
    """
    if not _inside_airflow():
        return _ask_a_child(conn_id)
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = Connection.get(conn_id)
    except AirflowNotFoundException:
        return None
    except PermissionError as error:
        raise PlatformError(
            f"Airflow does not give the connection {conn_id} to this task"
        ) from error
    return Credential(found.login or "", found.password or "", found.extra_dejson)


def how_to_add(conn_id: str, fields: str) -> str:
    """The advice for a connection that is missing."""
    home = os.environ.get("AIRFLOW_HOME") or settings().airflow_home
    return (
        f"Add it on Airflow's page under Admin, Connections, or run: AIRFLOW_HOME={home} airflow "
        f"connections add {conn_id} --conn-type generic {fields}"
    )


def _inside_airflow() -> bool:
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    in_task = getattr(runner, "SUPERVISOR_COMMS", None) is not None
    return in_task or os.environ.get(_SERVER) == "server"


def _ask_a_child(conn_id: str) -> Credential | None:
    environment = dict(os.environ)
    if "AIRFLOW_HOME" not in environment:
        from tracklayer.platform import airflow

        there = (settings().airflow_home / "airflow.cfg").exists()
        if not there and f"AIRFLOW_CONN_{conn_id.upper()}" not in environment:
            return None  # asked, Airflow would begin a home there
        environment |= airflow.environment(settings())
    # -P: nothing of the folder that we happen to be in is imported.
    command = [sys.executable, "-P", "-m", "tracklayer_airflow.connections", conn_id]
    try:
        done = subprocess.run(
            command,
            env=environment | {_SERVER: "server"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    except subprocess.TimeoutExpired:
        done, said = None, f"it did not answer in {_SECONDS} s"
    if done is None or done.returncode:
        raise PlatformError(
            f"the Airflow of {environment['AIRFLOW_HOME']} cannot be asked for the connection "
            f"{conn_id}: {said}",
            hint="Is it in order? `airflow connections list` shows it.",
        )
    found: dict[str, Any] | None = json.loads(done.stdout)
    return Credential(**found) if found else None


def _answer(conn_id: str) -> None:
    """What the child does: it prints the connection as JSON, and everything else elsewhere."""
    answer = os.dup(1)
    os.dup2(2, 1)
    found = find(conn_id)
    values = found and {
        "login": found.login,
        "password": found.password,
        "extra": dict(found.extra),
    }
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump(values, stream)


if __name__ == "__main__":
    _answer(sys.argv[1])
