"""A real Airflow: its database, its bundles, its tasks in processes of their own."""

from __future__ import annotations

import configparser
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

    from tests.conftest import Remote
    from tracklayer_airflow.bundle import ProjectBundle


@pytest.fixture(scope="session")
def database() -> None:
    """Airflow's database in the home of this test run, with its tables."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def execution_api(database: None) -> None:
    """The API that tasks talk to; loaded here, since a task waits only so long for it."""
    _api().get("health")


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the bundles of this test keep their clones."""
    folder = tmp_path / "bundles"
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(folder))
    return folder


@pytest.fixture
def open_bundle(remote: Remote, storage: Path) -> Callable[..., ProjectBundle]:
    """Makes the bundle of the repository, as Airflow does: not yet initialised."""
    from tracklayer_airflow.bundle import ProjectBundle

    def make(*, url: object = remote.url, version: str | None = None) -> ProjectBundle:
        return ProjectBundle(
            name="projects",
            repo_url=str(url),
            tracking_ref="main",
            version=version,
            refresh_interval=1,
        )

    return make


@pytest.fixture
def git_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The git commands that were started since this was asked last."""
    folder, log = tmp_path / "bin", tmp_path / "git-calls"
    folder.mkdir()
    log.touch()
    real = next(Path(p) / "git" for p in os.get_exec_path() if (Path(p) / "git").exists())
    wrapper = folder / "git"
    wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{log}"\nexec "{real}" "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def calls() -> list[str]:
        found = log.read_text().splitlines()
        log.write_text("")
        return found

    return calls


def _api() -> Any:
    from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

    return cast(Any, InProcessTestSupervisor)._api_client()


class Airflow:
    """What the DAG processor, the scheduler and a worker do, one thing at a time."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    def sync(self) -> dict[str, str]:
        """Read all bundles into the database, as ``airflow dags reserialize``; import errors."""
        from airflow.dag_processing.bundles.base import unpack_bundle_version
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

        manager = cast(Any, DagBundlesManager)()
        manager.sync_bundles_to_db()
        errors: dict[str, str] = {}
        for bundle in manager.get_all_dag_bundles():
            bundle.initialize()
            bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
            version, data = unpack_bundle_version(bundle.get_current_version(), bundle)
            sync_bag_to_db(bag, bundle.name, version, version_data=data)
            errors |= bag.import_errors
        return errors

    def trigger(self, dag: str, **conf: Any) -> Run:
        """A run of a DAG's newest version; its tasks wait to be run."""
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.sdk import timezone
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        with create_session() as session:
            now = timezone.utcnow()
            found = SerializedDagModel.get_dag(dag, session=session)
            assert found is not None, f"there is no DAG {dag}"
            run = found.create_dagrun(
                run_id=f"manual__{now.isoformat()}",
                logical_date=None,
                data_interval=None,
                run_after=now,
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                conf=conf,
                session=session,
            )
            session.flush()
            return Run(dag, run.run_id, str(run.bundle_version), self._logs)


class Run:
    """One run of a DAG."""

    def __init__(self, dag: str, run_id: str, version: str, logs: Path) -> None:
        self.dag, self.run_id, self.version = dag, run_id, version
        self._logs = logs

    def step(self, task: str) -> str:
        """Run one task as a worker does, whatever it waits for; the state that it ends in."""
        from airflow.executors.workloads import ExecuteTask
        from airflow.models.taskinstance import TaskInstance
        from airflow.sdk.execution_time.supervisor import supervise_task
        from airflow.utils.session import create_session

        with create_session() as session:
            instance = self._instance(session, task)
            instance.try_number += 1
            instance.state = "queued"
            session.flush()
            path = Path(instance.dag_model.relative_fileloc)
            work = ExecuteTask.make(instance, dag_rel_path=path, generator=None)
        supervise_task(
            ti=cast(Any, work.ti),
            bundle_info=work.bundle_info,
            dag_rel_path=work.dag_rel_path,
            token="",
            client=_api(),
            log_path=str(self._log(task)),
        )
        with create_session() as session:
            found: TaskInstance = self._instance(session, task)
            return str(found.state)

    def log(self, task: str) -> list[dict[str, Any]]:
        """The entries of the task's log, of all tries."""
        return [json.loads(line) for line in self._log(task).read_text().splitlines()]

    def said(self, task: str, level: str = "info") -> list[str]:
        """The messages of the task's log."""
        return [str(line["event"]) for line in self.log(task) if line["level"] == level]

    def xcom(self, task: str) -> dict[str, Any]:
        """All that the task left for others."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            rows = session.query(XComModel).filter_by(
                dag_id=self.dag, run_id=self.run_id, task_id=task
            )
            return {row.key: row.value for row in rows}

    def tries(self, task: str) -> int:
        """How often the task was tried."""
        from airflow.utils.session import create_session

        with create_session() as session:
            return int(self._instance(session, task).try_number)

    def record(self) -> dict[str, Any]:
        """The run record."""
        from tracklayer.settings import settings
        from tracklayer.tracking import RunRecord, run_folder

        return RunRecord(run_folder(settings().runs, self.dag, self.run_id)).document()

    def change(self, change: Callable[[DagRun], None]) -> None:
        """Change the run in the database."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            change(session.query(DagRun).filter_by(dag_id=self.dag, run_id=self.run_id).one())

    def _instance(self, session: Any, task: str) -> Any:
        from airflow.models.taskinstance import TaskInstance

        return (
            session.query(TaskInstance)
            .filter_by(dag_id=self.dag, run_id=self.run_id, task_id=task)
            .one()
        )

    def _log(self, task: str) -> Path:
        return self._logs / f"{self.run_id}.{task}.log"


TEMPLATES = {
    "chain.v1.yaml": "steps:\n  one: {run: noop}\n  two: {run: noop, after: [one]}\n",
    "data.v1.yaml": "steps:\n  fetch: {run: fetch, each: sources}\n",
}


@pytest.fixture
def airflow(
    execution_api: None,
    remote: Remote,
    storage: Path,
    own_home: Path,
    own_templates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Airflow]:
    """An Airflow on this test's repository, with templates whose steps need no server.

    Beside the projects it has a bundle ``local`` for DAG files of the test's own.
    """
    for name, text in TEMPLATES.items():
        (own_templates / name).write_text(text)
    (tmp_path / "dags").mkdir()
    (tmp_path / "logs").mkdir()
    ours = {"repo_url": str(remote.url), "tracking_ref": "main", "refresh_interval": 1}
    bundles = [
        {
            "name": "projects",
            "classpath": "tracklayer_airflow.bundle.ProjectBundle",
            "kwargs": ours,
        },
        {
            "name": "local",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(tmp_path / "dags")},
        },
    ]
    for variable, value in _platform_settings().items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
    yield Airflow(tmp_path / "logs")
    _forget_dags()


def _platform_settings() -> dict[str, str]:
    """How the platform has Airflow work, beside where things are and what is secret."""
    from tracklayer.platform.airflow import configuration
    from tracklayer.settings import settings

    parser = configparser.RawConfigParser()
    parser.read_string(configuration(settings(), {"jwt": "", "fernet": ""}))
    return {
        f"AIRFLOW__{section}__{key}".upper(): value
        for section in ("core", "dag_processor", "scheduler")
        for key, value in parser[section].items()
        if not re.search("folder|path|url|key|simple_auth|bundle_config", key)
    }


def _forget_dags() -> None:
    """The database is the session's: the next test finds none of this one's DAGs and runs."""
    from airflow.models.base import Base
    from airflow.utils.session import create_session

    kept = {"alembic_version", "slot_pool", "log_template", "job"}
    with create_session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name not in kept:
                session.execute(table.delete())
