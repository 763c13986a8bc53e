"""DAGs as the scheduler gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SPECS = Path(__file__).parent / "specs"


class Structure:
    """The structure of a serialised DAG: what a reader of a pipeline cares for, in its order."""

    def __init__(self, text: str) -> None:
        from airflow.serialization.serialized_objects import DagSerialization

        from tracklayer.spec import loads
        from tracklayer_airflow.dag import build_dag

        name = loads(text).name
        self.document: dict[str, Any] = DagSerialization.to_dict(
            build_dag(text, f"{name}/tracklayer.yaml")
        )
        self.dag: dict[str, Any] = self.document["dag"]

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Task id to its serialised fields."""
        return {task["__var"]["task_id"]: task["__var"] for task in self.dag["tasks"]}

    def upstream(self, task: str) -> list[str]:
        """The tasks that a task waits for."""
        return sorted(
            name
            for name, found in self.tasks.items()
            if task in found.get("downstream_task_ids", [])
        )

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON."""
        kept = ("dag_id", "description", "tags", "catchup", "max_active_runs")
        timetable = self.dag["timetable"]
        return {
            **{key: self.dag.get(key) for key in kept},
            "schedule": {timetable["__type"].rpartition(".")[2]: timetable.get("__var")},
            "params": [
                {
                    "name": name,
                    "default": found["default"],
                    "description": found["description"],
                    "schema": found["schema"]["__var"],
                }
                for name, found in self.dag.get("params", [])
            ],
            "tasks": [
                {
                    "id": name,
                    "type": f"{task['_task_module']}.{task['task_type']}",
                    "upstream": self.upstream(name),
                    "kind": _kind(task),
                    "fails the run": task.get("on_failure_fail_dagrun", False),
                    "trigger rule": task.get("trigger_rule", "all_success"),
                    "retries": task.get("retries"),
                    "templated": task["template_fields"],
                    "inlets": [_asset(found) for found in task.get("inlets", [])],
                    "outlets": [_asset(found) for found in task.get("outlets", [])],
                    "links": sorted(task.get("_operator_extra_links", {})),
                }
                for name, task in self.tasks.items()
            ],
        }


def _kind(task: dict[str, Any]) -> str:
    return "setup" if task.get("is_setup") else "teardown" if task.get("is_teardown") else "task"


def _asset(found: dict[str, Any]) -> dict[str, Any]:
    return {"kind": found["__type"], **found["__var"]}


@pytest.fixture(params=sorted(path.stem for path in SPECS.glob("*.yaml")))
def spec(request: pytest.FixtureRequest) -> str:
    """The name of each spec in ``specs/``."""
    name: str = request.param
    return name


@pytest.fixture
def text(spec: str) -> str:
    """Its text."""
    return (SPECS / f"{spec}.yaml").read_text()


@pytest.fixture
def structure_of() -> type[Structure]:
    """A spec's text to the structure of its DAG."""
    return Structure
