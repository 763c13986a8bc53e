from __future__ import annotations

import pytest

from tracklayer.cli.client import Platform
from tracklayer.errors import ProjectError


@pytest.fixture
def platform(server):
    with Platform(server.url, "a.token") as client:
        yield client


def test_steps_come_in_the_order_in_which_they_wait_for_each_other(server, platform, step):
    server.answers["GET /api/v2/dags/p/tasks"] = (
        200,
        {
            "tasks": [
                {"task_id": "train", "downstream_task_ids": ["deploy"]},
                {"task_id": "deploy", "downstream_task_ids": []},
                {"task_id": "a", "downstream_task_ids": ["train"]},
            ]
        },
    )
    path = "GET /api/v2/dags/p/dagRuns/r%2B1/taskInstances"
    indexes = ((1, None), (0, "x"))
    mapped = [step("a", "success", map_index=n, rendered_map_index=r) for n, r in indexes]
    found = [step("deploy", None), step("new", "running"), step("train", "queued"), *mapped]
    server.answers[path] = (200, {"task_instances": found})

    steps = platform.steps("p", "r+1", platform.order("p"))
    assert [(s.name, s.state) for s in steps] == [
        ("a[x]", "success"),
        ("a[1]", "success"),
        ("train", "queued"),
        ("deploy", "waiting"),
        ("new", "running"),
    ]
    assert steps[0].seconds == 2
    assert steps[2].seconds is None
    assert (steps[4].seconds or 0) > 1000


def test_a_run_whose_answer_was_lost_is_not_started_twice(server, platform):
    name = []

    def trigger(asked):
        name.append(run := asked.json["dag_run_id"])
        server.answers[f"GET /api/v2/dags/p/dagRuns/{run}"] = (200, {"dag_run_id": run})
        return (500, {}) if len(name) == 1 else (409, {"detail": "it is there"})

    server.answers["POST /api/v2/dags/p/dagRuns"] = trigger
    started = platform.trigger("p", {"epochs": 3})
    assert name == [started["dag_run_id"]] * 2
    posted = server.asked[0].json
    assert posted["conf"] == {"epochs": 3}
    assert posted["logical_date"] is None


def test_only_the_import_errors_of_the_project_count(server, platform):
    files = ["/b/project-p.py", "project-p__error.py", "/b/project-pp.py", "/b/project-p-2.py"]
    server.answers["GET /api/v2/importErrors"] = (
        200,
        {"import_errors": [{"filename": name} for name in files]},
    )
    assert [e["filename"] for e in platform.import_errors("p")] == [
        "/b/project-p.py",
        "project-p__error.py",
    ]


def test_a_step_that_has_not_started_has_no_log(server, platform, step):
    server.answers["GET /api/v2/dags/p/dagRuns/r/taskInstances"] = (
        200,
        {"task_instances": [step("a", None)]},
    )
    (found,) = platform.steps("p", "r", {})
    assert platform.log("p", "r", found) == ([], None)


def test_names_cannot_leave_their_place_in_the_address(server, platform):
    server.answers["GET /tracklayer/projects/..%2F..%2Fplatform"] = (200, {"name": "odd"})
    assert platform.project("../../platform") == {"name": "odd"}


def test_a_project_that_was_never_a_dag_has_no_runs(server, platform):
    server.answers["GET /tracklayer/projects/p"] = (200, {})
    assert platform.runs("p") == []
    with pytest.raises(ProjectError):
        platform.runs("q")
