"""The platform over HTTP: its own routes and those of Airflow's REST API that the commands need."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from urllib.parse import quote

from tracklayer.cli.transport import Data, Login, Transport
from tracklayer.errors import PlatformError

_PAGE = 100  # Airflow's largest
ENDED = frozenset({"success", "failed"})
STEP_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run. ``state`` is Airflow's, ``waiting`` while it has none."""

    name: str
    task: str
    index: int
    state: str
    tries: int
    started: datetime | None
    ended: datetime | None

    @property
    def seconds(self) -> float | None:
        """How long it ran, or has been running."""
        if self.started is None:
            return None
        return max(0.0, ((self.ended or datetime.now(UTC)) - self.started).total_seconds())

    def document(self) -> Data:
        """As data for ``--json``."""
        return {
            "step": self.name,
            "state": self.state,
            "tries": self.tries,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
        }


class Platform:
    """One platform, as one user.

    :param url: of Airflow's web server.
    :param token: to send, or what gives a user's name and password to get one.
    """

    def __init__(self, url: str, token: str | Login) -> None:
        self.url = url
        self._transport = Transport(url, token)

    def __enter__(self) -> Platform:
        return self

    def __exit__(self, *_error: object) -> None:
        self._transport.close()

    # The platform's own routes

    def describe(self) -> Data:
        """Version and addresses: ``version``, ``airflow``, ``mlflow``, ``gateway``."""
        return self._transport.object("GET", "/tracklayer/platform")

    def save(self, project: str, archive: bytes) -> Data:
        """Commit a project folder (a tar.gz): ``commit``, ``time``, ``changed``.

        :raises SpecError: its spec is wrong.
        :raises ProjectError: it has something that cannot be saved.
        """
        headers = {"Content-Type": "application/gzip"}
        path = f"/tracklayer/projects/{_part(project)}"
        return self._transport.object("PUT", path, content=archive, headers=headers)

    def projects(self) -> list[Data]:
        """All projects, by name."""
        found: list[Data] = self._transport.json("GET", "/tracklayer/projects")
        return found

    def project(self, name: str) -> Data:
        """One project.

        :raises ProjectError: there is none of that name.
        """
        return self._transport.object("GET", f"/tracklayer/projects/{_part(name)}")

    def visible(self, project: str, commit: str) -> bool:
        """Would a run that starts now use this commit, or a later one?"""
        path = f"/tracklayer/projects/{_part(project)}/commits/{_part(commit)}"
        return bool(self._transport.object("GET", path)["visible"])

    def record(self, project: str, run: str) -> Data:
        """The record of one run.

        :raises ProjectError: it has none.
        """
        return self._transport.object(
            "GET", f"/tracklayer/projects/{_part(project)}/runs/{_part(run)}/record"
        )

    # Airflow's REST API

    def dag(self, project: str) -> Data | None:
        """The DAG of a project with its ``params``; None if there is none yet."""
        response = self._transport.send(
            "GET", f"/api/v2/dags/{_part(project)}/details", allowed=(404,)
        )
        return None if response.status_code == 404 else response.json()

    def import_errors(self, project: str) -> list[Data]:
        """What kept Airflow from taking the newest version of a project."""
        found = self._transport.object("GET", "/api/v2/importErrors", params={"limit": _PAGE})
        files = (f"project-{project}.py", f"project-{project}__error.py")
        return [e for e in found["import_errors"] if e["filename"].rpartition("/")[2] in files]

    def unpause(self, project: str) -> None:
        """Let the runs of a project start."""
        self._transport.send("PATCH", f"/api/v2/dags/{_part(project)}", json={"is_paused": False})

    def trigger(self, project: str, conf: Data) -> Data:
        """Start a run.

        :param conf: hyperparameters that differ from the spec's.
        """
        # The name is ours, so that a request whose answer was lost does not start a second run.
        run = f"manual-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        path = f"/api/v2/dags/{_part(project)}/dagRuns"
        body = {"dag_run_id": run, "logical_date": None, "conf": conf}
        self._transport.send("POST", path, json=body, allowed=(409,))
        return self.run(project, run)

    def runs(self, project: str | None = None, *, limit: int = 20) -> list[Data]:
        """Runs, newest first; of all projects if ``project`` is None.

        :raises ProjectError: there is no such project.
        """
        path = f"/api/v2/dags/{_part(project or '~')}/dagRuns"
        params = {"order_by": "-run_after", "limit": min(limit, _PAGE)}
        response = self._transport.send("GET", path, params=params, allowed=(404,))
        if response.status_code == 404 and project:
            self.project(project)
            return []  # it was never a DAG
        found: list[Data] = response.json()["dag_runs"]
        return found

    def run(self, project: str, run: str) -> Data:
        """One run."""
        return self._transport.object("GET", f"/api/v2/dags/{_part(project)}/dagRuns/{_part(run)}")

    def order(self, project: str) -> dict[str, int]:
        """Task to its place: each after all that it waits for."""
        tasks = self._transport.object("GET", f"/api/v2/dags/{_part(project)}/tasks")["tasks"]
        graph: dict[str, list[str]] = {task["task_id"]: [] for task in tasks}
        for task in tasks:
            for later in task["downstream_task_ids"] or []:
                graph.setdefault(later, []).append(task["task_id"])
        try:
            ordered = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            raise PlatformError(f"The DAG {project} has a cycle: {error.args[1]}.") from None
        return {task: place for place, task in enumerate(ordered)}

    def steps(self, project: str, run: str, order: dict[str, int]) -> list[Step]:
        """The steps of a run.

        :param order: from :meth:`order`.
        """
        path = f"/api/v2/dags/{_part(project)}/dagRuns/{_part(run)}/taskInstances"
        found = self._transport.object("GET", path, params={"limit": _PAGE})["task_instances"]
        # What begins so is no step but part of how Airflow judges a run.
        found = [task for task in found if not task["task_id"].startswith("_")]
        return sorted(map(_step, found), key=lambda s: (order.get(s.task, len(order)), s.index))

    def log(
        self, project: str, run: str, step: Step, *, position: str | None = None
    ) -> tuple[list[Data | str], str | None]:
        """A step's log from a position on, and the position after it."""
        path = (
            f"/api/v2/dags/{_part(project)}/dagRuns/{_part(run)}"
            f"/taskInstances/{_part(step.task)}/logs/{max(step.tries, 1)}"
        )
        params: dict[str, str | int] = {"map_index": step.index}
        if position:
            params["token"] = position
        response = self._transport.send("GET", path, params=params, allowed=(404,))
        if response.status_code == 404:  # it has not started
            return [], position
        found = response.json()
        return found["content"], found.get("continuation_token")


def _part(text: str) -> str:
    return quote(text, safe="~")


def _step(data: Data) -> Step:
    index = data["map_index"]
    suffix = "" if index < 0 else f"[{data['rendered_map_index'] or index}]"
    return Step(
        name=data["task_id"] + suffix,
        task=data["task_id"],
        index=index,
        state=data["state"] or "waiting",
        tries=data["try_number"],
        started=time_of(data["start_date"]),
        ended=time_of(data["end_date"]),
    )


def time_of(text: str | None) -> datetime | None:
    """A time as Airflow writes it."""
    return datetime.fromisoformat(text) if text else None
