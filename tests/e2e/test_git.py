"""Projects that are changed with git alone: while they run, and for the worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

Times = Callable[[float], bytes]

WAITING = """\
name: waiting
template: lean@1
train:
  script: train.py
  hyperparameters: {{go: {go}, accuracy: {accuracy}}}
  metrics: {{accuracy: 'accuracy (\\S+)'}}
evaluate: {{metric: accuracy, minimum: {minimum}}}
"""
WAITS = """\
import argparse, os, pathlib, shutil, time

parser = argparse.ArgumentParser()
parser.add_argument("--go", type=pathlib.Path)
parser.add_argument("--accuracy")
options = parser.parse_args()
print("the {which} script has accuracy", options.accuracy, flush=True)
while not options.go.exists():
    time.sleep(0.1)
shutil.copy("model.onnx", os.environ["SM_MODEL_DIR"])
"""
MODEL = "name: {name}\ntemplate: serve@1\nsources: {{model: path:model.onnx}}\n"


def errors(platform: Platform, name: str) -> list[Any]:
    found = platform.get("/api/v2/importErrors")["import_errors"]
    return [error for error in found if error["filename"] == f"project-{name}__error.py"]


def test_a_run_keeps_the_commit_it_started_from(
    platform: Platform, times: Times, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    old = platform.push(
        "waiting",
        {
            "tracklayer.yaml": WAITING.format(go=go, accuracy=0.5, minimum=0.4),
            "train.py": WAITS.format(which="old"),
            "model.onnx": times(2),
        },
    )
    first = platform.trigger("waiting")
    platform.wait_running("waiting", first, "train")
    new = platform.push(
        "waiting",
        {
            "tracklayer.yaml": WAITING.format(go=go, accuracy=0.7, minimum=0.6),
            "train.py": WAITS.format(which="new"),
            "model.onnx": times(3),
        },
    )
    second = platform.trigger("waiting")  # it waits for the first
    go.touch()
    for run, commit, which, accuracy, minimum in (
        (first, old, "old", 0.5, 0.4),
        (second, new, "new", 0.7, 0.6),
    ):
        assert platform.wait("waiting", run)["bundle_version"] == commit
        record = platform.record("waiting", run)
        assert record["commit"] == commit
        assert record["steps"]["train"]["hyperparameters"]["accuracy"] == accuracy
        assert f"at least {minimum}" in record["steps"]["evaluate"]["reason"]
        assert f"the {which} script" in platform.log_text("waiting", run, "train")
    assert platform.ask("waiting", 10) == ("2", 30)


def test_code_alone_can_change(platform: Platform, times: Times) -> None:
    platform.push("coded", {"tracklayer.yaml": MODEL.format(name="coded"), "model.onnx": times(2)})
    first = platform.trigger("coded")
    platform.wait("coded", first)
    assert platform.ask("coded", 10) == ("1", 20)
    commit = platform.push("coded", {"model.onnx": times(4)})
    second = platform.trigger("coded")
    platform.wait("coded", second)
    assert platform.record("coded", second)["commit"] == commit
    assert platform.ask("coded", 10) == ("2", 40)


def test_a_broken_project_hurts_nothing_else(platform: Platform, times: Times) -> None:
    good = MODEL.format(name="plain")
    right = platform.push("plain", {"tracklayer.yaml": good, "model.onnx": times(5)})
    platform.push("other", {"tracklayer.yaml": MODEL.format(name="other"), "model.onnx": times(6)})

    broken = good.replace("template:", "templat:")
    platform.git_push({"plain/tracklayer.yaml": broken, "plain/model.onnx": times(7)})
    (error,) = platform.until(lambda: errors(platform, "plain"), "the import error")
    assert "plain/tracklayer.yaml:2:1: " in error["stack_trace"]
    assert "template" in error["stack_trace"].partition("plain/tracklayer.yaml:2:1: ")[2]
    status = platform.json("status", "plain")
    assert not status["valid"]
    assert (2, 1) in {(found["line"], found["column"]) for found in status["problems"]}

    runs = {name: platform.trigger(name) for name in ("plain", "other")}
    for name, run in runs.items():
        platform.wait(name, run)
    assert platform.record("plain", runs["plain"])["commit"] == right
    assert platform.ask("plain", 10) == ("1", 50)
    assert platform.ask("other", 10) == ("1", 60)

    platform.push("plain", {"tracklayer.yaml": good})
    platform.until(lambda: not errors(platform, "plain"), "no import error any more")
