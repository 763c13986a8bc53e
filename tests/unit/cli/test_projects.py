from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from tracklayer.cli.scaffold import SCAFFOLDS, SCHEMA_FILE
from tracklayer.spec import check_project, load

TEMPLATES = sorted(path.name for path in SCAFFOLDS.iterdir())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_project_is_valid_and_tells_editors_its_schema(call, here, template):
    code, out, err = call("new", "first-try", "--template", f"{template}@1", "--json")
    assert (code, err) == (0, "")
    folder = here / "first-try"
    made = json.loads(out)
    assert made["folder"] == str(folder)
    assert set(made["files"]) == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }

    spec = load(folder / "tracklayer.yaml")
    assert spec.name == "first-try"
    assert check_project(spec, folder, targets=["local"]) == []
    first = (folder / "tracklayer.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"
    schema = json.loads((folder / SCHEMA_FILE).read_text())
    assert set(yaml.safe_load((folder / "tracklayer.yaml").read_text())) <= set(
        schema["properties"]
    )
    assert call("validate", "first-try")[0] == 0
    assert sorted(path.name for path in here.iterdir()) == ["first-try"]


def test_the_model_of_a_new_project_answers_its_request(call, here):
    from tracklayer.serving import golden, recognise

    call("new", "a", "--template", "deploy-pretrained@1")
    recognise(here / "a/model")
    request = json.loads((here / "a/request.json").read_text())
    made = golden(here / "a/model").request["inputs"][0]
    asked = request["inputs"][0]
    assert (asked["name"], asked["datatype"]) == (made["name"], made["datatype"])
    assert asked["shape"][1:] == made["shape"][1:]


def test_a_new_project_trains(call, here):
    call("new", "a")
    argv = [sys.executable, "train.py", "--epochs", "100"]
    done = subprocess.run(argv, cwd=here / "a", capture_output=True, text=True, check=True)
    assert done.stdout.startswith("epoch 100: accuracy=0.9")
    assert (here / "a/model/model.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["there"], 3, "exists already"),
        (["Bad Name"], 2, "NAME:2:7"),
        (["../out"], 2, "NAME:2:7"),
        (["x", "--template", "train@7"], 2, "Known: deploy-pretrained@1, train-and-deploy@1."),
        (["x", "--template", "../.."], 2, "there is no new project for the template"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(call, here, arguments, code, message):
    (here / "there").mkdir()
    found, out, err = call("new", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert [path.name for path in here.iterdir()] == ["there"]
    assert list((here / "there").iterdir()) == []


def test_a_folder_that_cannot_be_written(call, here, monkeypatch):
    monkeypatch.chdir("/proc")
    code, _, err = call("new", "a")
    assert code == 3
    assert "/proc/a cannot be written" in err


def test_all_problems_of_a_spec_at_once(call, here):
    (here / "tracklayer.yaml").write_text(
        "name: a\ntemplate: train-and-deploy@1\ntrian: {}\ntrain: {script: gone.py}\n"
    )
    code, out, err = call("validate")
    assert (code, out) == (2, "")
    assert "3:1" in err
    assert "Did you mean" in err

    (here / "tracklayer.yaml").write_text(
        "name: a\ntemplate: train-and-deploy@1\ntarget: moon\ntrain: {script: gone.py}\n"
    )
    code, out, _ = call("validate", "tracklayer.yaml", "--json")
    assert code == 2
    problems = json.loads(out)["error"]["problems"]
    assert [(p["line"], p["message"]) for p in problems] == [
        (3, "there is no target `moon`"),
        (4, "there is no script `gone.py` in the project"),
    ]


def test_the_schema_is_json_and_accepts_an_example(call):
    code, out, _ = call("schema")
    assert code == 0
    assert "name" in json.loads(out)["properties"]


def saved(server, **more):
    commit = {"project": "a", "commit": "c" * 40, "time": "2026-01-01T00:00:00Z", "changed": True}
    server.answers["PUT /tracklayer/projects/a"] = (200, commit | more)
    server.answers[f"GET /tracklayer/projects/a/commits/{'c' * 40}"] = [
        (200, {"visible": False}),
        (200, {"visible": True}),
    ]
    server.answers["GET /api/v2/importErrors"] = (200, {"import_errors": []})


def test_push_waits_until_the_commit_is_what_would_run(remote, server, here):
    remote("new", "a")
    saved(server)
    code, out, err = remote("push", "a")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "Saved a at commit cccccccccccc."
    assert [asked.path for asked in server.asked].count(
        f"/tracklayer/projects/a/commits/{'c' * 40}"
    ) == 2
    assert server.asked[0].token == "a.token"

    server.asked.clear()
    saved(server, changed=False)
    code, out, err = remote("push", "a", "--no-wait", "--json")
    assert code == 0
    assert json.loads(out)["changed"] is False
    assert "Unchanged" in err
    assert len(server.asked) == 1


def test_push_tells_what_airflow_makes_of_it(remote, server, here):
    remote("new", "a")
    saved(server)
    trace = "Traceback\n  File x\nSpecError: a/tracklayer.yaml:1:1: no\n"
    error = {
        "filename": "project-a__error.py",
        "timestamp": "2026-01-01T00:00:01Z",
        "stack_trace": trace,
    }
    old = error | {"timestamp": "2025-12-31T23:59:59Z", "stack_trace": "long ago"}
    server.answers["GET /api/v2/importErrors"] = (200, {"import_errors": [old, error]})
    code, _, err = remote("push", "a")
    assert code == 3
    assert "Airflow cannot make a DAG of a: SpecError: a/tracklayer.yaml:1:1: no" in err


def test_a_broken_folder_is_not_sent(remote, server, here):
    (here / "tracklayer.yaml").write_text("nome: a\n")
    assert remote("push")[0] == 2
    assert server.asked == []
