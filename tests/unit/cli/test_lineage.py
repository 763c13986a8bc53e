from __future__ import annotations

import json

import pytest

RUN, DIGEST, MANIFEST = "0" * 31 + "a", "sha256:" + "d" * 64, "sha256:" + "e" * 64
COMMIT = "c" * 40
MLFLOW = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


def version(number, **tags):
    own = {"tracklayer.model": DIGEST, "tracklayer.run": "manual-1", "tracklayer.commit": COMMIT}
    return {
        "name": "p",
        "version": str(number),
        "run_id": RUN,
        "source": f"mlflow-artifacts:/1/{RUN}/artifacts/model/dddddddddddd",
        "tags": [{"key": key, "value": value} for key, value in (own | tags).items()],
    }


def file(path, size=10, **more):
    return {"path": path, "size": size, "digest": "sha256:" + "f" * 64, **more}


RECORD = {
    "project": "p",
    "run": "manual-1",
    "commit": COMMIT,
    "steps": {
        "provision": {"target": "local", "hosts": []},
        "packages": {"digest": "sha256:" + "1" * 64, "lock": "a==1\nb==2\n", "python": "/x"},
        "fetch-data": {
            "source": "data",
            "handle": "hf://datasets/some-organisation/a-data-set-with-a-long-name@main",
            "revision": "b" * 40,
            "manifest": MANIFEST,
            "allowed": ["pickle"],
            "files": [file(f"part-{n}.parquet", format="parquet") for n in range(12)],
        },
        "train": {
            "mlflow_run": RUN,
            "mlflow_url": "http://mlflow/#/runs",
            "hyperparameters": {"epochs": 3, "rate": 0.001},
            "model": {"manifest": MANIFEST, "format": "onnx", "files": [file("model.onnx")]},
        },
        "evaluate": {"metrics": {"accuracy": 0.9666666666}},
    },
}


@pytest.fixture
def known(server):
    """A project ``p`` whose version 2 is live and 3 is the champion."""
    endpoint = {"url": f"{server.url}/p", "version": "2", "error": None}
    server.answers |= {
        "GET /tracklayer/projects/p": (200, {"name": "p", "endpoint": endpoint}),
        "GET /tracklayer/platform": (200, {"mlflow": server.url}),
        f"GET {MLFLOW}/registered-models/alias": (200, {"model_version": version(3)}),
        f"GET {MLFLOW}/model-versions/search": (
            200,
            {"model_versions": [version(n) for n in (3, 2, 1)]},
        ),
        f"GET {MLFLOW}/runs/get": (
            200,
            {"run": {"info": {"artifact_uri": f"mlflow-artifacts:/1/{RUN}/artifacts"}}},
        ),
        f"GET {ARTIFACTS}/1/{RUN}/artifacts/record.json": (200, RECORD),
    }
    return endpoint


def test_from_the_endpoint_to_the_sources(remote, server, known):
    code, out, _ = remote("lineage", "p")
    assert code == 0
    lines = [line.strip("│├└─ ") for line in out.splitlines()]
    assert lines[:10] == [
        f"endpoint {server.url}/p",
        "version 2, live",
        "model dddddddddddd onnx",
        "model.onnx  10 bytes  ffffffffffff",
        "run manual-1",
        f"MLflow run {RUN}",
        "project p at commit cccccccccccc",
        "hyperparameters epochs=3, rate=0.001",
        "metrics accuracy=0.966667",
        "packages 111111111111 (2 locked)",
    ]
    assert lines[10:16] == [
        "target local",
        "source data",
        RECORD["steps"]["fetch-data"]["handle"],
        f"revision {'b' * 40}",
        "allowed by the project: pickle",
        "part-0.parquet  10 bytes  parquet  ffffffffffff",
    ]
    assert lines[-1] == "and 4 more (--json shows all)"


def test_all_of_it_as_data(remote, known):
    found = json.loads(remote("lineage", "p", "--json")[1])
    steps = RECORD["steps"]
    assert found["endpoint"] == known
    assert found["version"]["number"] == 2
    assert found["model"]["files"] == steps["train"]["model"]["files"]
    assert (found["model"]["digest"], found["model"]["manifest"]) == (DIGEST, MANIFEST)
    assert found["project"] == {"name": "p", "commit": COMMIT, "spec": "p/tracklayer.yaml"}
    assert found["packages"]["lock"] == ["a==1", "b==2"]
    assert found["sources"] == [
        {"name": "data"} | {k: v for k, v in steps["fetch-data"].items() if k != "source"}
    ]


def test_a_person_at_eighty_columns(remote, known, monkeypatch):
    monkeypatch.setattr("tracklayer.cli.output._PIPE_WIDTH", 80)
    out = remote("lineage", "p")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert "a-data-set-with-a-long-name@" in out  # folded, not cut
    assert "…" not in out


def test_what_was_champion_where_nothing_is_served(remote, server, known):
    known["version"] = None
    found = json.loads(remote("lineage", "p", "--json")[1])
    assert found["version"] == {
        "number": 3,
        "live": False,
        "champion": True,
        "url": f"{server.url}/#/models/p/versions/3",
    }


def test_a_run_that_did_not_end_well_is_in_the_platforms_record(remote, server, known):
    missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such artifact"}
    server.answers[f"GET {ARTIFACTS}/1/{RUN}/artifacts/record.json"] = (404, missing)
    server.answers["GET /tracklayer/projects/p/runs/manual-1/record"] = (200, RECORD)
    found = json.loads(remote("lineage", "p", "--version", "1", "--json")[1])
    assert found["version"]["number"] == 1
    assert found["sources"][0]["revision"] == "b" * 40

    # Nor there: what MLflow knows of the version is still something.
    said = {"error": "no record", "hint": None, "kind": "ProjectError"}
    server.answers["GET /tracklayer/projects/p/runs/manual-1/record"] = (404, said)
    server.answers[f"GET {ARTIFACTS}"] = (200, {"files": [{"path": "m.onnx", "file_size": 7}]})
    found = json.loads(remote("lineage", "p", "--version", "1", "--json")[1])
    assert found["model"]["files"] == [{"path": "m.onnx", "size": 7, "digest": None}]
    assert (found["project"]["commit"], found["sources"]) == (COMMIT, [])
    assert "m.onnx  7 bytes" in remote("lineage", "p", "--version", "1")[1]


def test_nothing_to_show(remote, server, known):
    code, _, err = remote("lineage", "p", "--version", "7")
    assert code == 9
    assert err == "There is no version 7 of p.\nThere are: 3, 2, 1.\n"

    known["version"] = None
    absent = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}
    server.answers[f"GET {MLFLOW}/registered-models/alias"] = (404, absent)
    code, _, err = remote("lineage", "p")
    assert code == 9
    assert "No version of p is served yet" in err
    assert "tracklayer run p --follow" in err

    said = {"error": "There is no project 'p'.", "hint": None, "kind": "ProjectError"}
    server.answers["GET /tracklayer/projects/p"] = (404, said)
    assert remote("lineage", "p")[0] == 3
