from __future__ import annotations

import hashlib
import json
import pickle

import pytest

from tracklayer.store import open_store

DATA = b"a,b\n1,2\n"
SPEC = """\
name: p
template: train-and-deploy@1
sources:
  data: path:data.csv
  more: {uri: "path:more"}
train: {script: train.py}
evaluate: {metric: accuracy, minimum: 0.5}
"""


@pytest.fixture
def project(own_home, tmp_path):
    folder = tmp_path / "p"
    (folder / "more").mkdir(parents=True)
    (folder / "tracklayer.yaml").write_text(SPEC)
    (folder / "train.py").touch()
    (folder / "data.csv").write_bytes(DATA)
    for number in range(12):
        (folder / f"more/{number:02}.json").write_text(json.dumps({"n": number}))
    return folder


@pytest.mark.parametrize("named", ["p", "p/tracklayer.yaml"])
def test_all_sources_of_a_project(call, project, tmp_path, named):
    code, out, _ = call("fetch", str(tmp_path / named))
    assert code == 0
    lines = out.splitlines()
    assert "data: fetched, 8 bytes" in lines
    assert "more: fetched, 98 bytes" in lines
    assert "  and 2 more (--json shows all)" in lines
    (manifest,) = [line.split()[1] for line in lines if line.startswith("  tree")][:1]
    assert [file.path for file in open_store().manifest(manifest).files] == ["data.csv"]

    found = json.loads(call("fetch", str(project), "--json")[1])
    assert [(row["name"], row["handle"], row["cached"]) for row in found] == [
        ("data", "path:data.csv", True),
        ("more", "path:more", True),
    ]
    assert found[0]["manifest"] == manifest
    assert found[0]["files"] == [
        {
            "path": "data.csv",
            "size": 8,
            "digest": f"sha256:{hashlib.sha256(DATA).hexdigest()}",
            "executable": False,
            "format": "CSV",
        }
    ]


def test_one_source_by_its_handle(call, project, monkeypatch):
    monkeypatch.chdir(project)
    code, out, _ = call("fetch", "path:data.csv", "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert (found["name"], found["handle"], found["size"]) == (None, "path:data.csv", 8)
    assert call("store", "show", "path:data.csv")[0] == 0


def test_a_password_in_a_handle_is_not_shown(call, project):
    code, out, err = call("fetch", f"https://u:hunter2@host/f.csv#sha256={'ab' * 32}")
    assert code == 4
    assert "user or a password" in err
    assert "hunter2" not in out + err


def test_what_runs_code_needs_to_be_allowed(call, project, server):
    content = pickle.dumps({"a": object})
    server.answers["GET /model.pkl"] = (200, content)
    handle = f"{server.url}/model.pkl#sha256={hashlib.sha256(content).hexdigest()}"
    code, _, err = call("fetch", handle)
    assert code == 4
    assert "model.pkl" in err
    assert "pickle" in err
    assert call("fetch", handle, "--allow", "pickle")[0] == 0
    code, _, err = call("fetch", handle, "--allow", "everything")
    assert code == 64
    assert "remote-code" in err


def test_no_way_out_of_this_machine_once_it_is_here(call, project, server):
    content = b"a,b\n"
    server.answers["GET /a.csv"] = (200, content)
    handle = f"{server.url}/a.csv#sha256={hashlib.sha256(content).hexdigest()}"
    assert call("fetch", handle, "--offline")[0] == 4
    assert server.asked == []
    assert call("fetch", handle)[0] == 0
    asked = len(server.asked)
    assert json.loads(call("fetch", handle, "--offline", "--json")[1])[0]["cached"] is True
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "'nothing' is no source, and no folder with a tracklayer.yaml."),
        ("hff://org/model@main", "Did you mean hf:?"),
        ("path:gone.csv", "gone.csv"),
    ],
)
def test_what_cannot_be_fetched(call, project, what, message):
    code, _, err = call("fetch", what)
    assert code == 4
    assert message in err


def test_a_project_that_is_wrong(call, project):
    (project / "tracklayer.yaml").write_text(SPEC.replace("path:data.csv", "pth:data.csv"))
    code, _, err = call("fetch", str(project))
    assert code == 2
    assert "tracklayer.yaml:4" in err


def test_a_project_without_a_source(call, project):
    lines = SPEC.splitlines(keepends=True)
    (project / "tracklayer.yaml").write_text("".join(lines[:2] + lines[5:]))
    assert "names no source" in call("fetch", str(project))[1]
    assert json.loads(call("fetch", str(project), "--json")[1]) == []


def test_a_connection_that_is_not_there(call, project, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = call("fetch", "hf://org/model@main", "--connection", "hf_lab")
    assert code == 4
    assert "hf_lab" in err
    assert "airflow connections add" in err
