"""The structure of the DAGs of the platform's templates, against snapshots.

After a change that is meant: ``UPDATE_SNAPSHOTS=1 python -m pytest tests/dags/test_structure.py``,
then read the difference before committing it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.dags.conftest import Structure as _Structure

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.fixture
def structure(text: str, request: pytest.FixtureRequest) -> _Structure:
    structure: _Structure = request.getfixturevalue("structure_of")(text)
    return structure


def test_the_structure_is_that_of_the_snapshot(spec: str, structure: _Structure) -> None:
    path = SNAPSHOTS / f"{spec}.json"
    found = json.dumps(structure.summary(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(found, "utf-8")
    assert found == path.read_text("utf-8")


def test_every_snapshot_has_its_spec() -> None:
    specs = {path.stem for path in (Path(__file__).parent / "specs").iterdir()}
    assert {path.stem for path in SNAPSHOTS.iterdir()} == specs


def test_every_template_of_the_platform_has_a_snapshot() -> None:
    from tracklayer.settings import resource
    from tracklayer.spec import known_templates

    tags = [json.loads(path.read_text("utf-8"))["tags"] for path in SNAPSHOTS.iterdir()]
    assert set().union(*tags) == {"tracklayer", *known_templates([resource("dags/templates")])}


def test_what_costs_money_is_given_back_whatever_happens(structure: _Structure) -> None:
    tasks = structure.tasks
    release = tasks["release"]
    assert tasks["provision"]["is_setup"]
    assert release["is_teardown"]
    assert release["on_failure_fail_dagrun"]
    assert release["trigger_rule"] == "all_done_setup_success"
    assert "provision" in structure.upstream("release")
    ends = {
        name for name, task in tasks.items() if "release" in task.get("downstream_task_ids", [])
    }
    assert {"verify"} <= ends <= {"verify", "provision"}
    assert not release.get("downstream_task_ids")


def test_a_green_clean_up_hides_no_failure(structure: _Structure) -> None:
    """Airflow asks the leaves whether a run succeeded: one of them follows the last step."""
    leaves = {name for name, task in structure.tasks.items() if not task.get("downstream_task_ids")}
    assert leaves == {"_outcome", "release"}
    assert structure.upstream("_outcome") == ["verify"]
    assert structure.tasks["_outcome"].get("trigger_rule", "all_success") == "all_success"


def test_nothing_is_left_to_evaluate(structure: _Structure) -> None:
    """A spec is data: no field of a task is a Jinja template."""
    assert {tuple(task["template_fields"]) for task in structure.tasks.values()} == {()}
