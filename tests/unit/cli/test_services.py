from __future__ import annotations

import json

import pytest

V2 = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}
PROBLEM = {"file": "q/tracklayer.yaml", "line": 3, "column": 1, "message": "odd", "hint": None}


def described(server, name="p", **more):
    endpoint = {"url": f"{server.url}/{name}", "version": "3", "error": None}
    return {
        "name": name,
        "valid": True,
        "problems": [],
        "description": "about it",
        "template": "train-and-deploy@1",
        "endpoint": endpoint,
        "latest": {"id": "c" * 40, "author": "ann <a@b>", "time": "2026-01-01T00:00:00Z"},
        **more,
    }


@pytest.fixture
def project(server):
    server.answers["GET /tracklayer/projects/p"] = (200, described(server))


@pytest.fixture
def asked_with(tmp_path):
    def write(content, name="request.json"):
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(file)

    return write


def test_a_request_goes_by_the_protocol_that_it_is_written_for(remote, server, project, asked_with):
    outputs = [
        {"name": "digit", "datatype": "INT64", "shape": [2], "data": [4, 9]},
        {"name": "p", "datatype": "FP32", "shape": [2, 10], "data": [[0.123456] * 10] * 2},
    ]
    server.answers["POST /p/v2/models/p/infer"] = (200, {"outputs": outputs})
    server.answers["POST /p/invocations"] = (200, {"predictions": [1]})

    code, out, _ = remote("predict", "p", asked_with(V2))
    assert code == 0
    assert out.splitlines() == [
        "digit  INT64 [2]  4 9",
        f"p  FP32 [2, 10]  {'0.1235 ' * 12}... (20 values)",
    ]
    assert json.loads(remote("predict", "p", "-", "--json", stdin=json.dumps(V2))[1]) == {
        "outputs": outputs
    }
    for content, name in (
        ({"instances": [[1]]}, "a.json"),
        ({"inputs": [[1]]}, "b.json"),
        ("1\n", "c.csv"),
    ):
        code, out, _ = remote("predict", "p", asked_with(content, name), "--json")
        assert (code, json.loads(out)) == (0, {"predictions": [1]})
    paths = [asked.path for asked in server.asked if asked.method == "POST"]
    assert paths == ["/p/v2/models/p/infer"] * 2 + ["/p/invocations"] * 3
    assert all(asked.token is None for asked in server.asked if asked.method == "POST")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"inputs": [1,\n}', "request.json:2:1: this is no JSON"),
        ("\udc80".encode("utf-8", "surrogatepass").decode("latin-1"), "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
    ],
)
def test_a_request_that_is_no_json(remote, server, project, asked_with, content, message):
    code, _, err = remote("predict", "p", asked_with(content))
    assert code == 2
    assert message in err
    assert not any(asked.method == "POST" for asked in server.asked)


def test_a_request_that_is_not_there(remote, project):
    code, _, err = remote("predict", "p", "gone.json")
    assert code == 2
    assert "gone.json:1:1: No such file" in err


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((400, {"error": "x has the wrong shape"}), "answered 400: x has the wrong shape"),
        ((404, {"error": "no project"}), "tracklayer run p --follow"),
        ((502, b"<html>"), "did not answer with JSON"),
        ((200, [1]), "answered 200: [1]"),
        ((401, {"error": "who asks?"}), "Put a key into TRACKLAYER_API_KEY"),
    ],
)
def test_an_endpoint_that_refuses(remote, server, project, asked_with, answer, message):
    server.answers["POST /p/v2/models/p/infer"] = answer
    code, out, err = remote("predict", "p", asked_with(V2))
    assert (code, out) == (11, "")
    assert message in err


def test_a_key_is_sent_to_the_endpoint_alone(remote, server, project, asked_with, monkeypatch):
    monkeypatch.setenv("TRACKLAYER_API_KEY", "of-ann")
    server.answers["POST /p/v2/models/p/infer"] = (200, {"outputs": []})
    assert remote("predict", "p", asked_with(V2))[0] == 0
    assert {each.path: each.key for each in server.asked} == {
        "/tracklayer/projects/p": None,
        "/p/v2/models/p/infer": "of-ann",
    }


def test_an_endpoint_that_is_not_there(remote, server, asked_with):
    endpoint = {"url": "http://127.0.0.1:9/p", "version": None, "error": None}
    server.answers["GET /tracklayer/projects/p"] = (200, described(server, endpoint=endpoint))
    code, _, err = remote("predict", "p", asked_with(V2))
    assert code == 11
    assert "The endpoint http://127.0.0.1:9/p does not answer" in err


def test_status_of_all_projects(remote, server):
    broken = described(server, "q", valid=False, problems=[PROBLEM], template=None)
    broken["endpoint"] |= {"version": None}
    server.answers["GET /tracklayer/projects"] = (200, [described(server), broken])
    runs = [
        {"dag_id": "p", "dag_run_id": f"r{n}", "state": state, "run_after": "2026-01-01T00:00:00Z"}
        for n, state in ((2, "running"), (1, "failed"))
    ]
    server.answers["GET /api/v2/dags/~/dagRuns"] = (200, {"dag_runs": runs})
    code, out, _ = remote("status")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["project", "spec", "last", "run", "live", "endpoint"],
        ["p", "valid", "running", "version", "3", f"{server.url}/p"],
        ["q", "1", "wrong"],
    ]
    found = json.loads(remote("status", "--json")[1])
    assert found["processes"] is None
    assert [project["run"] and project["run"]["run"] for project in found["projects"]] == [
        "r2",
        None,
    ]


def test_status_of_one_project(remote, server):
    endpoint = {"url": f"{server.url}/p", "version": None, "error": "The gateway does not answer."}
    found = described(server, valid=False, problems=[PROBLEM], endpoint=endpoint)
    server.answers["GET /tracklayer/projects/p"] = (200, found)
    server.answers["GET /api/v2/dags/p/dagRuns"] = (200, {"dag_runs": []})
    code, out, _ = remote("status", "p")
    assert code == 0
    for part in (
        "cccccccccccc by ann",
        "q/tracklayer.yaml:3:1: odd",
        "The gateway does not answer.",
    ):
        assert part in out


def test_versions_that_share_the_requests_are_shown(remote, server):
    endpoint = {"url": f"{server.url}/p", "version": 3, "error": None}
    shared = described(server, endpoint=endpoint | {"weights": {"3": 90, "4": 10, "2": 0}})
    server.answers["GET /tracklayer/projects/p"] = (200, shared)
    server.answers["GET /api/v2/dags/p/dagRuns"] = (200, {"dag_runs": [], "total_entries": 0})
    assert "versions 3: 90%, 4: 10%" in remote("status", "p")[1]
    alone = described(server, endpoint=endpoint | {"weights": {"3": 100, "2": 0}})
    server.answers["GET /tracklayer/projects/p"] = (200, alone)
    assert "version 3" in remote("status", "p")[1]
