from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import ParamValidationError

from tracklayer.errors import SpecError
from tracklayer.spec import RUNS
from tracklayer_airflow.dag import OPERATORS, build_dag
from tracklayer_airflow.operators.step import StepOperator

BASE = "name: digits\ntemplate: train-and-deploy@1\n"
TRAIN = "train: {script: train.py, hyperparameters: {epochs: 5, learning-rate: 0.1, name: adam}}\n"
FILE = "digits/tracklayer.yaml"


def build(*lines: str, base: str = BASE + TRAIN) -> DAG:
    return build_dag(base + "".join(f"{line}\n" for line in lines), FILE)


def test_there_is_an_operator_for_everything_that_a_step_can_run() -> None:
    assert set(OPERATORS) == set(RUNS)


@pytest.mark.parametrize("run", OPERATORS)
def test_each_is_one_of_our_operators(run: str) -> None:
    module, _, name = OPERATORS[run].partition(":")
    found = getattr(import_module(module), name)
    assert issubclass(found, StepOperator)
    assert found.__doc__
    assert tuple(found.template_fields) == ()


def test_operators_import_what_is_heavy_only_when_they_run() -> None:
    """The DAG processor imports them for each file that it parses."""
    folder = Path(import_module("tracklayer_airflow").__file__ or "").parent / "operators"
    heavy = {"runtimes", "sources", "store", "tools", "tracking", "packages", "serving", "gateway"}
    for path in folder.glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[-1] not in heavy, f"{path.name}: {node.module}"


def test_the_dag_is_the_project() -> None:
    dag = build("description: All of it")
    assert (dag.dag_id, dag.description) == ("digits", "All of it")
    assert dag.tags == {"tracklayer", "train-and-deploy@1"}
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert "script: train.py" in str(dag.doc_md)
    assert build().description is None


def test_hyperparameters_are_what_a_person_is_asked_for() -> None:
    dag = build(
        base=BASE
        + """\
train:
  script: train.py
  hyperparameters:
    epochs: {value: 5, minimum: 1, maximum: 9, description: How often}
    rate: 0.5
    kind: {value: a, enum: [a, b]}
    shuffle: true
"""
    )
    assert {name: dag.params[name] for name in dag.params} == {
        "epochs": 5,
        "rate": 0.5,
        "kind": "a",
        "shuffle": True,
    }
    epochs = dag.params.get_param("epochs")
    assert epochs.schema == {"type": "integer", "minimum": 1, "maximum": 9}
    assert epochs.description == "How often"
    for name, wrong in {"epochs": 10, "rate": "x", "kind": "c", "shuffle": 1}.items():
        with pytest.raises(ParamValidationError):
            dag.params.get_param(name).resolve(wrong)
    assert dag.params.get_param("rate").resolve(1) == 1


@pytest.mark.parametrize("schedule", ["@weekly", "30 4 * * 1-5", "@hourly"])
def test_a_project_that_is_saved_waits_for_its_next_time(schedule: str) -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    dag = DagSerialization.deserialize_dag(
        DagSerialization.serialize_dag(build(f'schedule: "{schedule}"'))
    )
    restriction = TimeRestriction(earliest=None, latest=None, catchup=False)
    first = dag.timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=restriction
    )
    assert first is not None
    now = datetime.now(UTC)
    assert now - timedelta(seconds=1) < first.run_after < now + timedelta(days=8)


def test_without_a_schedule_a_project_runs_when_somebody_says_so() -> None:
    assert build().timetable.can_be_scheduled is False


def test_a_project_can_follow_others() -> None:
    def followed(schedule: str) -> Any:
        timetable: Any = build(f"schedule: {{after: {schedule}}}").timetable
        return timetable.asset_condition

    several = followed("[a/model, b/data]")
    assert type(several).__name__ == "AssetAll"
    assert list(several.objects) == [
        Asset(name="a/model", uri="tracklayer://a/model"),
        Asset(name="b/data", uri="tracklayer://b/data"),
    ]
    assert followed("[a/model]") == Asset(name="a/model", uri="tracklayer://a/model")


def test_what_a_project_sets_off() -> None:
    dag = build("sources: {data: 'path:data', base: 'path:base'}")
    outlets: dict[str, Any] = {
        task.task_id: [found.name for found in task.outlets] for task in dag.tasks if task.outlets
    }
    assert outlets == {
        "fetch-data": ["digits/data"],
        "fetch-base": ["digits/base"],
        "verify": ["digits/model"],
    }


def test_every_step_knows_its_project_and_only_what_was_interrupted_is_tried_again() -> None:
    dag = build("sources: {data: 'path:data'}")
    for task in dag.tasks:
        if task.task_id == "_outcome":
            continue
        assert isinstance(task, StepOperator)
        assert task.spec.name == "digits"
        assert (task.retries, task.retry_delay.total_seconds()) == (2, 1.0)
        assert type(task.retry_policy).__name__ == "RetryOnlyInterruptions"
        assert task.item == ("data" if task.task_id == "fetch-data" else None)
        assert task.commit is None
    pinned = build_dag(BASE + TRAIN, FILE, commit="c0ffee")
    assert {task.commit for task in pinned.tasks if isinstance(task, StepOperator)} == {"c0ffee"}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: digits\ntemplate: train-and-deploy@1\nx: 1\n", f"{FILE}:3:1: "),
        ("name: digits\ntemplate: no-such@1\n", f"{FILE}:2:11: "),
        (BASE, f"{FILE}:2:11: "),
    ],
)
def test_a_wrong_spec_makes_no_dag(text: str, place: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_dag(text, FILE)
    assert str(caught.value).startswith(place)


def test_a_dag_is_built_in_less_than_ten_milliseconds(benchmark: Callable[..., float]) -> None:
    build()
    assert benchmark(build) < 0.010


@pytest.fixture
def benchmark() -> Callable[..., float]:
    """The shortest of some calls, in seconds: what the machine does besides makes them longer."""
    import time

    def measure(call: Callable[[], object]) -> float:
        times = []
        for _ in range(20):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        return min(times)

    return measure
