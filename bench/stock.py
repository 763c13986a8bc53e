"""Airflow as it comes: ``airflow standalone``, in an environment and a home of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import say
from bench.peers import python_of
from bench.processes import clean_environment, free_ports, started
from bench.rest import Airflow, wait_healthy

NAME = "stock Airflow"


@dataclass(frozen=True, slots=True)
class Stock:
    """A stock Airflow that runs. ``pid`` is the process that all its others descend from."""

    pid: int
    airflow: Airflow


@contextmanager
def standalone(folder: Path, *dags: Path) -> Iterator[Stock]:
    """``airflow standalone``, up until the block ends, whatever way.

    Its configuration is the default but for addresses and the example DAGs.

    :param folder: an empty one, for its home and its log.
    :param dags: files to be in its DAG folder.
    :raises NotMeasuredError: it cannot be installed or does not start.
    """
    python = python_of("airflow")
    home = folder / "airflow"
    (home / "dags").mkdir(parents=True)
    for dag in dags:
        shutil.copy(dag, home / "dags")
    port, worker_logs, triggerer_logs = free_ports(3)
    url = f"http://127.0.0.1:{port}"
    env = clean_environment(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="false",
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__BASE_URL=url,
        AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(worker_logs),
        AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(triggerer_logs),
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="false",
    )
    # It starts its parts by the name `airflow`.
    env["PATH"] = f"{python.parent}:{env['PATH']}"
    log = folder / "standalone.log"
    say(f"  starting {NAME}")
    argv = [str(python), "-m", "airflow", "standalone"]
    with started(argv, env=env, cwd=folder, log=log) as process:
        wait_healthy(url, log=log)
        passwords = home / "simple_auth_manager_passwords.json.generated"
        password = json.loads(passwords.read_text())["admin"]
        yield Stock(process.pid, Airflow(url, "admin", password))
