"""Airflow's REST API, as whoever triggers a run uses it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from bench.measure import NotMeasuredError

_LOOK = 0.02  # seconds between two questions
_ENDED = ("success", "failed")


class Airflow:
    """A user of one Airflow.

    :param url: of the API server.
    :raises NotMeasuredError: it does not let this user in.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        body = {"username": user, "password": password}
        answer = httpx.post(f"{url}/auth/token", json=body, timeout=30, trust_env=False)
        if not answer.is_success:
            raise NotMeasuredError(f"{url}/auth/token answered {answer.status_code}")
        self._http = httpx.Client(
            base_url=f"{url}/api/v2",
            headers={"Authorization": f"Bearer {answer.json()['access_token']}"},
            timeout=60,
            trust_env=False,
        )

    def wait_for(self, dag: str, *, within: float = 120) -> None:
        """Wait until there is such a DAG.

        :raises NotMeasuredError: there is none in time; with the import errors, if any.
        """
        deadline = time.monotonic() + within
        while (status := self._http.get(f"/dags/{dag}").status_code) != 200:
            if time.monotonic() > deadline:
                errors = [e["stack_trace"] for e in self._get("/importErrors")["import_errors"]]
                raise NotMeasuredError(f"no DAG {dag} after {within:.0f} s: {status}, {errors}")
            time.sleep(_LOOK)

    def unpause(self, dag: str) -> None:
        """Let its runs run."""
        self._http.patch(f"/dags/{dag}", json={"is_paused": False}).raise_for_status()

    def run(self, dag: str, *, within: float = 900) -> float:
        """Trigger a run and wait for its end.

        :returns: seconds from the request to the end seen.
        :raises NotMeasuredError: it failed, at these steps, or took too long.
        """
        begin = time.perf_counter()
        answer = self._http.post(f"/dags/{dag}/dagRuns", json={"logical_date": None})
        if not answer.is_success:
            raise NotMeasuredError(f"{dag} was not triggered: {answer.text}")
        path = f"/dags/{dag}/dagRuns/{answer.json()['dag_run_id']}"
        while (state := self._get(path)["state"]) not in _ENDED:
            if time.perf_counter() - begin > within:
                raise NotMeasuredError(f"{dag} is {state} after {within:.0f} s")
            time.sleep(_LOOK)
        seconds = time.perf_counter() - begin
        if state != "success":
            steps = self._get(f"{path}/taskInstances")["task_instances"]
            failed = [step["task_id"] for step in steps if step["state"] == "failed"]
            raise NotMeasuredError(f"the run of {dag} failed at {', '.join(failed)}")
        return seconds

    def _get(self, path: str) -> Any:
        answer = self._http.get(path)
        if not answer.is_success:
            raise NotMeasuredError(f"{path} answered {answer.status_code}: {answer.text}")
        return answer.json()


def wait_healthy(url: str, *, log: Path, within: float = 180) -> None:
    """Wait until the database, the scheduler and the DAG processor of an Airflow are healthy.

    :raises NotMeasuredError: they are not in time; with the end of its log.
    """
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            health = httpx.get(f"{url}/api/v2/monitor/health", timeout=5, trust_env=False).json()
            parts = ("metadatabase", "scheduler", "dag_processor")
            if all(health[part]["status"] == "healthy" for part in parts):
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass  # it is not up yet
        time.sleep(0.2)
    lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    raise NotMeasuredError(f"{url} is not healthy after {within:.0f} s: {' | '.join(lines)}")
