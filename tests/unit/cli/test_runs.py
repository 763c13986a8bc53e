from __future__ import annotations

import json

import pytest

from tracklayer.spec import OFFLINE

PARAMS = {
    "epochs": {"value": 3, "schema": {"type": "integer", "minimum": 1}},
    "rate": {"value": 0.5, "schema": {"type": "number"}},
    "deep": {"value": False, "schema": {"type": "boolean"}},
    "label": {"value": "x", "schema": {"type": "string"}},
}
DAG = {"is_stale": False, "is_paused": True, "params": PARAMS}
LISTED = {
    "dag_id": "p",
    "dag_run_id": "r",
    "state": "success",
    "start_date": "2026-01-01T00:00:00Z",
    "duration": 65.2,
    "bundle_version": "c" * 40,
    "triggering_user_name": "ann",
    "run_after": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def project(server):
    """A project ``p`` that takes runs."""
    server.answers["GET /api/v2/dags/p/details"] = (200, DAG)
    server.answers["PATCH /api/v2/dags/p"] = (200, {})
    started = {}

    def trigger(asked):
        started.update(asked.json)
        path = f"GET /api/v2/dags/p/dagRuns/{started['dag_run_id']}"
        server.answers[path] = (200, LISTED | {"dag_run_id": started["dag_run_id"]})
        return 200, {}

    server.answers["POST /api/v2/dags/p/dagRuns"] = trigger
    return started


def test_hyperparameters_have_the_types_of_the_project(remote, server, project):
    code, out, _ = remote(
        "run", "p", "--json", "--set", "epochs=7", "--set", "rate=1e-3", "--set", "deep=true",
        "--set", "label=a=b",
    )  # fmt: skip
    assert code == 0
    assert project["conf"] == {"epochs": 7, "rate": 0.001, "deep": True, "label": "a=b"}
    assert json.loads(out)["run"] == project["dag_run_id"]
    assert [asked.json for asked in server.asked if asked.method == "PATCH"] == [
        {"is_paused": False}
    ]


def test_a_run_without_the_network(remote, project):
    assert remote("run", "p", "--offline", "--set", "epochs=7")[0] == 0
    assert project["conf"] == {"epochs": 7, OFFLINE: True}
    code, _, err = remote("run", "p", "--set", f"{OFFLINE}=true")
    assert code == 3
    assert f"There is no hyperparameter {OFFLINE}." in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=1", "Did you mean epochs?"),
        ("epochs=1.5", "epochs must be of type integer, not '1.5'"),
        ("deep=yes", "deep must be of type boolean, not 'yes'"),
        ("epochs", "has no value"),
    ],
)
def test_a_wrong_hyperparameter_starts_nothing(remote, server, project, text, message):
    code, _, err = remote("run", "p", "--set", text)
    assert code == 3
    assert message in err
    assert project == {}


def test_a_project_that_cannot_run(remote, server):
    said = {"error": "There is no project 'p'.", "hint": None, "kind": "ProjectError"}
    server.answers["GET /tracklayer/projects/p"] = (404, said)
    code, _, err = remote("run", "p")
    assert (code, err) == (3, "There is no project 'p'.\n")

    server.answers["GET /tracklayer/projects/p"] = (200, {})
    code, _, err = remote("run", "p")
    assert code == 3
    assert "has no version that could run" in err


@pytest.mark.parametrize(("state", "expected"), [("success", 0), ("failed", 8)])
def test_follow_ends_with_the_state_of_the_run(remote, server, project, step, state, expected):
    server.answers["GET /api/v2/dags/p/tasks"] = (200, {"tasks": []})

    def trigger(asked):
        run = f"/api/v2/dags/p/dagRuns/{asked.json['dag_run_id']}"
        server.answers[f"GET {run}"] = (200, LISTED | {"state": state} | asked.json)
        server.answers[f"GET {run}/taskInstances"] = (
            200,
            {"task_instances": [step("train", state)]},
        )
        log = {"content": [{"event": "no disk", "level": "error"}]}
        server.answers[f"GET {run}/taskInstances/train/logs/1"] = (200, log)
        return 200, {}

    server.answers["POST /api/v2/dags/p/dagRuns"] = trigger
    code, out, err = remote("run", "p", "--follow")
    assert code == expected
    assert "train" in out
    assert ("no disk" in err) == (state == "failed")

    code, out, _ = remote("run", "p", "--follow", "--json")
    assert code == expected
    assert json.loads(out)["state"] == state
    assert json.loads(out).get("error", {}).get("message") == ("no disk" if expected else None)


def test_runs_as_a_table_and_as_json(remote, server):
    server.answers["GET /api/v2/dags/~/dagRuns"] = (200, {"dag_runs": [LISTED]})
    code, out, _ = remote("runs")
    assert code == 0
    row = out.splitlines()[1].split()
    assert row[:3] == ["p", "r", "success"]
    assert row[5:] == ["1", "m", "5", "s", "c" * 12, "ann"]

    server.answers["GET /api/v2/dags/p/dagRuns"] = (200, {"dag_runs": []})
    assert json.loads(remote("runs", "p", "--json", "--limit", "3")[1]) == []
    assert "limit=3" in server.asked[-1].query


@pytest.fixture
def logged(server, step):
    """A run of two steps that has ended, with a log each."""
    run = "/api/v2/dags/p/dagRuns/r"
    tasks = [
        {"task_id": "a", "downstream_task_ids": ["b"]},
        {"task_id": "b", "downstream_task_ids": []},
    ]
    server.answers |= {
        "GET /api/v2/dags/p/dagRuns": (200, {"dag_runs": [LISTED]}),
        "GET /api/v2/dags/p/tasks": (200, {"tasks": tasks}),
        f"GET {run}": (200, LISTED),
        f"GET {run}/taskInstances": (
            200,
            {"task_instances": [step("b", "success"), step("a", "success"), step("c", None)]},
        ),
    }
    for task in "ab":
        log = {"content": [{"event": f"hello {task}", "level": "info"}]}
        server.answers[f"GET {run}/taskInstances/{task}/logs/1"] = (200, log)


def test_logs_of_the_newest_run_step_by_step(remote, logged):
    code, out, _ = remote("logs", "p", "--follow")
    assert (code, out.split("\n")) == (0, ["--- a", "hello a", "--- b", "hello b", ""])

    code, out, _ = remote("logs", "p", "b", "--json")
    assert (code, [json.loads(line)["text"] for line in out.splitlines()]) == (0, ["hello b"])

    code, _, err = remote("logs", "p", "x", "--run", "r")
    assert code == 3
    assert "Its steps: a, b, c." in err


def test_logs_of_a_project_without_a_run(remote, server):
    server.answers["GET /api/v2/dags/p/dagRuns"] = (200, {"dag_runs": []})
    code, _, err = remote("logs", "p")
    assert code == 3
    assert "tracklayer run p" in err
