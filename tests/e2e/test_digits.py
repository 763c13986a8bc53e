"""The example, from its spec to a live endpoint and to its next version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracklayer.settings import resource

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

EXAMPLE = resource("examples/digits")
REQUEST = EXAMPLE / "request.json"
STEPS = {
    *("provision", "configure", "fetch-data", "packages", "train"),
    *("evaluate", "register", "deploy", "verify", "release"),
}


def digits(answer: Any) -> list[int]:
    """The digits in an answer to the example's request: it shows a 4, a 9 and a 0."""
    return next(output["data"] for output in answer["outputs"] if output["name"] == "digit")


@pytest.fixture(scope="module")
def first(platform: Platform) -> Any:
    """The first run, by the command line alone; what ``run --follow --json`` says of it."""
    platform.tracklayer("push", str(EXAMPLE))
    return platform.json("run", "digits", "--follow")


@pytest.mark.timeout(600)  # PyTorch is installed
def test_one_file_becomes_an_endpoint(platform: Platform, first: Any) -> None:
    assert first["state"] == "success"
    states = {step["step"]: step["state"] for step in first["steps"]}
    assert states.keys() >= STEPS
    assert set(states.values()) == {"success"}
    answer = platform.json("predict", "digits", str(REQUEST))
    assert answer["model_version"] == "1"
    assert digits(answer) == [4, 9, 0]
    said = platform.tracklayer("predict", "digits", str(REQUEST)).stdout
    assert "digit  INT64 [3]  4 9 0" in said


def test_the_commands_tell_what_happened(platform: Platform, first: Any, tmp_path: Path) -> None:
    status = platform.json("status")
    states = {process["name"]: process["state"] for process in status["processes"]}
    assert states.keys() >= {
        *("api-server", "dag-processor", "digits.v1.0", "gateway", "mlflow", "scheduler")
    }
    assert set(states.values()) == {"RUNNING"}
    found = next(project for project in status["projects"] if project["name"] == "digits")
    assert found["valid"]
    assert found["endpoint"]["version"] == 1
    assert found["run"]["state"] == "success"
    (run,) = platform.json("runs", "digits")
    assert (run["run"], run["state"], run["by"]) == (first["run"], "success", "admin")

    logs = platform.tracklayer("logs", "digits").stdout
    for step in STEPS:
        assert f"--- {step}" in logs
    assert "Apply complete!" in logs
    lines = platform.tracklayer("logs", "digits", "train", "--json").stdout.splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert sum(text.startswith("epoch ") for text in texts) == 10

    file = tmp_path / "token"
    file.write_text(platform.token())
    remote = ("--url", platform.url("airflow"), "--token-file", str(file))
    assert platform.json("status", "digits", *remote)["endpoint"]["version"] == 1


def test_mlflow_has_all_of_the_run(platform: Platform, first: Any) -> None:
    version = platform.mlflow.aliased("digits")
    assert version.version == 1
    history = platform.mlflow.metric_history(version.run_id, "accuracy")
    assert [point.step for point in history] == list(range(1, 11))
    assert history[-1].value >= 0.97
    (run,) = platform.mlflow.runs_of("digits", first["run"])
    assert run["info"]["run_id"] == version.run_id
    assert run["info"]["status"] == "FINISHED"
    parameters = {found["key"]: found["value"] for found in run["data"]["params"]}
    assert parameters == {
        "epochs": "10",
        "learning-rate": "0.005",
        "batch-size": "64",
        "seed": "0",
    }

    kept = platform.mlflow.artifact(run, "record.json")
    assert kept["run"] == first["run"]
    assert kept["commit"] == platform.record("digits", first["run"])["commit"]
    assert set(kept["steps"]) == STEPS - {"release"}
    assert kept["steps"]["fetch-data"]["files"][0]["path"] == "optdigits.csv.gz"
    assert "torch==2.13.0" in kept["steps"]["packages"]["lock"]
    assert kept["steps"]["register"]["version"] == 1


def test_the_next_run_by_the_rest_api_takes_over(platform: Platform, first: Any) -> None:
    run = platform.trigger("digits", epochs=8)
    platform.wait_running("digits", run, "train")
    link = platform.until(
        lambda: platform.links("digits", run, "train").get("MLflow run"),
        "the link to the MLflow run",
        lambda: platform.log_text("digits", run, "train"),
    )
    platform.wait("digits", run)
    assert platform.links("digits", run, "train")["MLflow run"] == link

    record = platform.record("digits", run)["steps"]
    assert record["fetch-data"]["cached"]
    assert record["packages"]["cached"]
    assert record["configure"]["changed"] == 0
    assert record["train"]["hyperparameters"]["epochs"] == 8
    assert record["train"]["mlflow_url"] == link
    assert platform.links("digits", run, "verify")["Endpoint"] == record["deploy"]["endpoint"]

    now = platform.mlflow.aliased("digits")
    assert now.version == 2
    assert platform.mlflow.aliased("digits", "previous").version == 1
    history = platform.mlflow.metric_history(now.run_id, "accuracy")
    assert [point.step for point in history] == list(range(1, 9))
    answer = platform.json("predict", "digits", str(REQUEST))
    assert answer["model_version"] == "2"
    assert digits(answer) == [4, 9, 0]
    names = {process["name"] for process in platform.json("status")["processes"]}
    assert {"digits.v1.0", "digits.v2.0"} <= names  # the one before is there to go back to
