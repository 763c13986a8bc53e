from __future__ import annotations

import io
import json
import tarfile
import zipfile

import pytest

SPEC = "name: {name}\ntemplate: deploy-pretrained@1\nsources: {{model: path:model.onnx}}\n"
ROUTES = [
    ("GET", "/platform"),
    ("GET", "/projects"),
    ("GET", "/projects/p"),
    ("PUT", "/projects/p"),
    ("GET", "/projects/p/history"),
    ("GET", f"/projects/p/commits/{'0' * 40}"),
    ("GET", "/projects/p/runs/r/record"),
]


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            made.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def project(name: str, **more: str) -> bytes:
    return archive({"tracklayer.yaml": SPEC.format(name=name), "model.onnx": "m", **more})


@pytest.fixture(scope="session")
def nobody(web):
    with web.client() as client:
        yield client


@pytest.fixture(scope="session")
def ann(web):
    with web.client("ann") as client:
        yield client


@pytest.fixture(scope="session")
def vera(web):
    with web.client("vera") as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _repository(web):
    from tracklayer.projects import Repository

    Repository(str(web.home / "projects.git"), cache=web.home / "mirror").create()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_comes_in_without_a_token(nobody, method, path):
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Cookie": "_token=x"}):
        assert nobody.request(method, path, headers=headers).status_code in (401, 403)
    assert nobody.request(method, path).status_code == 401


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/"])
def test_nothing_describes_the_routes(nobody, ann, path):
    assert nobody.get(path).status_code == 404
    assert ann.get(path).status_code == 404


def test_who_may_only_look_cannot_save(vera):
    assert vera.put("/projects/p", content=project("p")).status_code == 403
    assert vera.get("/projects").status_code == 200


def test_the_cookie_of_airflows_page_is_enough(web, nobody):
    headers = {"Cookie": f"_token={web.token('vera')}"}
    assert nobody.get("/projects", headers=headers).status_code == 200


def test_the_platform_describes_itself(web, ann):
    found = ann.get("/platform").json()
    assert found["airflow"] == web.url
    assert set(found) == {"version", "airflow", "mlflow", "gateway"}


def test_a_project_is_saved_listed_and_remembered(ann, vera):
    first = ann.put("/projects/live", content=project("live"))
    assert first.status_code == 200, first.text
    assert first.json()["changed"] is True

    again = ann.put("/projects/live", content=project("live")).json()
    assert (again["changed"], again["commit"]) == (False, first.json()["commit"])

    changed = ann.put("/projects/live", content=project("live", **{"b/c.txt": "new"})).json()
    assert changed["changed"] is True

    history = vera.get("/projects/live/history").json()
    assert [commit["id"] for commit in history] == [changed["commit"], first.json()["commit"]]
    assert {commit["author"].partition(" <")[0] for commit in history} == {"ann"}

    found = vera.get("/projects/live").json()
    assert found["valid"] is True
    assert found["latest"]["id"] == changed["commit"]
    assert found["endpoint"]["version"] == 7
    assert found["endpoint"]["url"].endswith("/live")
    assert "live" in [listed["name"] for listed in vera.get("/projects").json()]

    visible = vera.get(f"/projects/live/commits/{changed['commit']}").json()
    assert visible == {"version": None, "visible": False}  # no process here makes DAGs


def test_a_zip_is_as_good(ann):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("tracklayer.yaml", SPEC.format(name="zipped"))
        made.writestr("model.onnx", "m")
    assert ann.put("/projects/zipped", content=buffer.getvalue()).json()["changed"] is True
    assert ann.get("/projects/zipped").json()["endpoint"]["version"] is None


def test_all_problems_of_a_spec_come_back_located(ann):
    text = "name: broken\ntemplate: train-and-deploy@1\ntrian: {}\ndeploy: {replicas: 0}\n"
    answer = ann.put("/projects/broken", content=archive({"tracklayer.yaml": text}))
    assert answer.status_code == 422
    problems = answer.json()["problems"]
    assert [(found["file"], found["line"]) for found in problems] == [
        ("broken/tracklayer.yaml", 3),
        ("broken/tracklayer.yaml", 4),
    ]
    assert all(found["column"] and found["message"] for found in problems)
    assert ann.get("/projects/broken").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "neither a tar"),
        (project("bad", **{"../out": "x"}), 400, "is not a path"),
        (project("bad", **{"/etc/x": "x"}), 400, "is not a path"),
        (project("bad", **{".git/config": "x"}), 400, "is not a path"),
        (project("other"), 422, "name"),
        (archive({"a": "b"}), 400, "tracklayer.yaml"),
    ],
    ids=["empty", "up", "absolute", "git", "another name", "no spec"],
)
def test_what_cannot_be_saved_changes_nothing(ann, body, status, message):
    before = ann.get("/projects").json()
    answer = ann.put("/projects/bad", content=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert ann.get("/projects").json() == before


def test_a_body_that_is_too_large_is_not_read_to_its_end(ann):
    def endless():
        for _ in range(300):
            yield b"\0" * 2**20

    answer = ann.put("/projects/large", content=endless())
    assert answer.status_code == 413
    assert "MiB" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/projects/none",
        "/projects/none/history",
        "/projects/none/runs/r/record",
        "/projects/live/runs/none/record",
        "/projects/live/runs/..%2F..%2F..%2Fetc/record",
        "/projects/..%2F..%2Fetc/history",
    ],
)
def test_what_is_not_there_is_our_own_404(ann, path):
    answer = ann.get(path)
    assert answer.status_code == 404


def test_a_commit_is_named_in_full(ann):
    assert ann.get("/projects/live/commits/--all").status_code == 422


def test_the_record_of_a_run(web, ann):
    from tracklayer.tracking import RunRecord, run_folder

    run = "manual__2026-01-01T00:00:00+00:00"
    record = RunRecord(run_folder(web.home / "runs", "live", run))
    record.begin(project="live", run=run, commit="c")
    record.write("evaluate", {"metrics": {"accuracy": 0.98}})
    document = ann.get(f"/projects/live/runs/{run}/record").json()
    assert document["run"] == run
    assert document["steps"] == {"evaluate": {"metrics": {"accuracy": 0.98}}}


def test_the_command_line_against_it(web, tmp_path, monkeypatch, capsys):
    from tracklayer.cli.main import main

    (tmp_path / "token").write_text(web.token("ann"))
    monkeypatch.setenv("TRACKLAYER_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("TRACKLAYER_URL", web.url)
    monkeypatch.chdir(tmp_path)
    assert main(["new", "of-cli", "--template", "deploy-pretrained@1"]) == 0
    assert main(["push", "of-cli", "--no-wait"]) == 0
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    projects = json.loads(capsys.readouterr().out)["projects"]
    assert "of-cli" in [found["name"] for found in projects]
    assert main(["status", "of-cli"]) == 0
    assert main(["status", "gone"]) == 3
    assert main(["run", "of-cli"]) == 3  # saved, but no process here makes DAGs
    assert main(["runs", "--json"]) == 0
    (tmp_path / "token").write_text(web.token("vera"))
    capsys.readouterr()
    assert main(["push", "of-cli"]) == 13
    assert "does not allow this user" in capsys.readouterr().err
