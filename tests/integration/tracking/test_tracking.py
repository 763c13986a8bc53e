from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tracklayer.errors import ModelError, TrackingError
from tracklayer.tracking import Tracking
from tracklayer.tracking.rest import Rest

if TYPE_CHECKING:
    from tests.integration.tracking.conftest import Server


@pytest.fixture
def tracking(server: str) -> Tracking:
    return Tracking(server)


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own."""
    return str(request.node.name).replace("_", "-").partition("[")[0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(os.urandom(3_000_000))
    (folder / "sub dir/ünï 1.json").write_text("{}")
    (folder / "empty").touch()
    return folder


def downloaded(server: str, uri: str, into: Path) -> dict[str, bytes]:
    """The files of a model, as MLflow's own client brings them."""
    into.mkdir()
    program = """
import sys
from mlflow.artifacts import download_artifacts
download_artifacts(sys.argv[1], dst_path=sys.argv[2])
"""
    subprocess.run(
        [sys.executable, "-c", program, uri, str(into)],
        env=os.environ | {"MLFLOW_TRACKING_URI": server},
        check=True,
    )
    return contents(into)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_run_is_made_once(tracking: Tracking, project: str) -> None:
    name = "manual__2025-01-01T00:00:00+00:00"
    first = tracking.start(project, name, parameters={"epochs": 3, "rate": 0.1}, tags={"a": "b"})
    tracking.finish(first.id, "FAILED")
    again = tracking.start(project, name, parameters={"epochs": 3, "rate": 0.1})
    assert again == first
    assert tracking.start(project, "another").id != first.id
    rest = Rest(first.url.partition("/#/")[0])
    run = rest.get("runs/get", run_id=first.id)["run"]
    assert run["info"]["status"] == "RUNNING"
    assert run["info"]["run_name"] == name
    assert {p["key"]: p["value"] for p in run["data"]["params"]} == {"epochs": "3", "rate": "0.1"}
    tags = {t["key"]: t["value"] for t in run["data"]["tags"]}
    assert (tags["tracklayer.run"], tags["a"]) == (name, "b")


def test_a_parameter_cannot_change_its_value(tracking: Tracking, project: str) -> None:
    tracking.start(project, "r", parameters={"epochs": 3})
    with pytest.raises(TrackingError, match="epochs"):
        tracking.start(project, "r", parameters={"epochs": 4})


def test_many_parameters(tracking: Tracking, project: str) -> None:
    run = tracking.start(project, "r", parameters={f"p{n}": n for n in range(250)})
    assert tracking.metrics(run.id) == {}


def test_metrics_and_their_history(tracking: Tracking, project: str) -> None:
    run = tracking.start(project, "r")
    for step in (2, 1, 3):
        tracking.log_metrics(run.id, {"accuracy": step / 10, "loss": 1.0}, step=step)
    assert tracking.metrics(run.id) == {"accuracy": 0.3, "loss": 1.0}
    history = tracking.metric_history(run.id, "accuracy")
    assert [(point.step, point.value) for point in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert tracking.metric_history(run.id, "nothing") == []


def test_metrics_that_are_no_numbers_come_back_as_such(tracking: Tracking, project: str) -> None:
    run = tracking.start(project, "r")
    tracking.log_metrics(run.id, {"a": math.nan, "b": math.inf, "c": -math.inf})
    found = tracking.metrics(run.id)
    assert math.isnan(found["a"])
    assert (found["b"], found["c"]) == (math.inf, -math.inf)


def test_finish(tracking: Tracking, project: str, server: str) -> None:
    run = tracking.start(project, "r")
    tracking.finish(run.id)
    info = Rest(server).get("runs/get", run_id=run.id)["run"]["info"]
    assert info["status"] == "FINISHED"
    assert int(info["end_time"]) >= int(info["start_time"])
    tracking.log_metrics(run.id, {"late": 1.0})  # a script's own end does not lock us out
    assert tracking.metrics(run.id) == {"late": 1.0}


def test_the_record_is_an_artifact(tracking: Tracking, project: str, server: str) -> None:
    run = tracking.start(project, "r")
    tracking.log_record(run.id, {"steps": {}})
    tracking.log_record(run.id, {"steps": {"train": {"größe": 1}}})
    query = {"run_id": run.id, "path": "record.json"}
    assert httpx.get(f"{server}/get-artifact", params=query).json() == {
        "steps": {"train": {"größe": 1}}
    }


def test_a_model_from_training_to_the_next_machine(
    tracking: Tracking, project: str, model: Path, server: str, tmp_path: Path
) -> None:
    run = tracking.start(project, "r")
    with pytest.raises(TrackingError, match="no model to register"):
        tracking.register(project, run.id)
    digest = tracking.log_model(run.id, model)
    version = tracking.register(project, run.id, tags={"tracklayer.commit": "c0ffee"})
    assert (version.version, version.digest, version.run_id) == (1, digest, run.id)
    assert version.tags["tracklayer.run"] == "r"
    assert version.tags["tracklayer.commit"] == "c0ffee"
    assert downloaded(server, f"models:/{project}/1", tmp_path / "copy") == contents(model)


def test_registering_again_is_the_same_version(
    tracking: Tracking, project: str, model: Path
) -> None:
    run = tracking.start(project, "r")
    assert tracking.log_model(run.id, model) == tracking.log_model(run.id, model)
    assert tracking.register(project, run.id) == tracking.register(project, run.id)
    assert len(tracking.versions(project)) == 1


def test_another_model_of_the_same_run_is_another_version(
    tracking: Tracking, project: str, model: Path, server: str, tmp_path: Path
) -> None:
    """As when somebody clears the training step: the first version still has its own files."""
    run = tracking.start(project, "r")
    tracking.log_model(run.id, model)
    tracking.register(project, run.id)
    before = contents(model)
    (model / "empty").unlink()
    tracking.log_model(run.id, model)
    assert tracking.register(project, run.id).version == 2
    assert downloaded(server, f"models:/{project}/1", tmp_path / "one") == before
    assert downloaded(server, f"models:/{project}/2", tmp_path / "two") == contents(model)


def test_promotion(tracking: Tracking, project: str, model: Path) -> None:
    assert tracking.champion(project) is None
    for number in (1, 2):
        run = tracking.start(project, f"r{number}")
        (model / "number").write_text(str(number))
        tracking.log_model(run.id, model)
        tracking.register(project, run.id)
    assert tracking.champion(project) is None
    tracking.promote(project, 1)
    assert tracking.by_alias(project, "previous") is None
    for _ in range(2):  # a second time changes nothing
        tracking.promote(project, 2)
        champion, previous = tracking.champion(project), tracking.by_alias(project, "previous")
        assert champion
        assert previous
        assert (champion.version, previous.version) == (2, 1)
    with pytest.raises(TrackingError, match=r"version.*7"):
        tracking.promote(project, 7)


def test_no_model(tracking: Tracking, project: str, tmp_path: Path) -> None:
    run = tracking.start(project, "r")
    with pytest.raises(ModelError, match="There is no model folder"):
        tracking.log_model(run.id, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"is empty.*\n.*SM_MODEL_DIR"):
        tracking.log_model(run.id, tmp_path / "empty")
    (tmp_path / "empty/link").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="neither a file nor a folder"):
        tracking.log_model(run.id, tmp_path / "empty")


def test_what_does_not_exist(tracking: Tracking) -> None:
    with pytest.raises(TrackingError, match=r"refused GET /api/2\.0/mlflow/runs/get"):
        tracking.metrics("0" * 32)
    with pytest.raises(TrackingError, match="RESOURCE_DOES_NOT_EXIST"):
        tracking.promote("nobody", 1)


def test_a_script_logs_into_the_same_run(tracking: Tracking, project: str, server: str) -> None:
    """With MLflow's own client, by the two variables that a job gets."""
    run = tracking.start(project, "r")
    code = "import mlflow; mlflow.log_metric('accuracy', 0.5, step=1)"
    variables = {"MLFLOW_TRACKING_URI": server, "MLFLOW_RUN_ID": run.id}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **variables}, check=True)
    assert tracking.metrics(run.id) == {"accuracy": 0.5}
    assert tracking.start(project, "r") == run


def test_the_server_keeps_to_its_home(tracking: Tracking, project: str, served: Server) -> None:
    tracking.log_record(tracking.start(project, "r").id, {})
    home = served.home / "mlflow"
    assert sorted(path.name for path in home.iterdir()) == [".lock", "mlflow.db"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.rglob("*"))
    with sqlite3.connect(home / "mlflow.db") as database:
        rows = database.execute("select name from experiments").fetchall()
    assert (project,) in rows
    assert json.loads(httpx.get(f"{served.url}/api/3.0/mlflow/server-info").text)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example"])
def test_the_server_answers_to_its_own_name_only(server: str, host: str) -> None:
    """A page in the user's browser cannot reach it by a name of its own (DNS rebinding)."""
    url = f"{server}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"Host": host}).status_code == 403
