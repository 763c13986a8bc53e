from __future__ import annotations

import io
import json

import pytest

from tracklayer.cli import follow as module
from tracklayer.cli.client import Platform
from tracklayer.cli.output import Output

RUN = "/api/v2/dags/p/dagRuns/r"


@pytest.fixture
def story(server, step, monkeypatch):
    """Lets the server tell the states of two steps, one pair a look."""
    monkeypatch.setattr(module, "_INTERVAL", 0.01)

    def tell(*looks, state="success"):
        server.answers["GET /api/v2/dags/p/tasks"] = (
            200,
            {
                "tasks": [
                    {"task_id": "fetch", "downstream_task_ids": ["train"]},
                    {"task_id": "train", "downstream_task_ids": []},
                ]
            },
        )
        states = ["running"] * (len(looks) - 1) + [state]
        server.answers[f"GET {RUN}"] = [
            (200, {"state": found, "duration": 3.5, "dag_run_id": "r"}) for found in states
        ]
        server.answers[f"GET {RUN}/taskInstances"] = [
            (200, {"task_instances": [step("fetch", one), step("train", two)]})
            for one, two in looks
        ]
        return Platform(server.url, "t")

    return tell


WHOLE = [
    (None, None),
    ("queued", None),
    ("running", None),
    ("success", "running"),
    ("success",) * 2,
]


def test_without_a_terminal_there_is_a_line_a_change(story, capsys):
    outcome = module.follow(story(*WHOLE), "p", "r", Output())
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["·", "fetch", "running"],
        ["✓", "fetch", "success", "2.0", "s"],
        ["·", "train", "running"],
        ["✓", "train", "success", "2.0", "s"],
    ]
    assert (outcome.state, outcome.seconds, outcome.failure) == ("success", 3.5, None)


def test_as_json_the_changes_are_on_stderr(story, capsys):
    outcome = module.follow(story(*WHOLE), "p", "r", Output(as_json=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert "train" in err
    assert json.loads(json.dumps(outcome.document()))["steps"][1]["seconds"] == 2


def test_a_failure_is_told_with_the_end_of_the_log(server, story):
    log = [{"event": "epoch 1", "level": "info"}, {"event": "exit code 3", "level": "error"}]
    server.answers[f"GET {RUN}/taskInstances/train/logs/1"] = (200, {"content": log})
    platform = story(("running", None), ("success", "failed"), state="failed")
    outcome = module.follow(platform, "p", "r", Output())
    assert outcome.failure == ("train", "exit code 3")
    with pytest.raises(module.JobFailed, match="failed at the step train:\nexit code 3") as caught:
        outcome.raise_for_failure()
    assert caught.value.exit_code == 8
    assert "tracklayer logs p train --run r" in caught.value.hint


def test_a_web_server_that_restarts_is_waited_for(server, story, monkeypatch):
    platform = story(("running", None), ("success", "success"))
    server.answers[f"GET {RUN}"].insert(1, (503, {}))
    for _ in range(2):
        server.answers[f"GET {RUN}"].insert(1, (503, {}))
    assert module.follow(platform, "p", "r", Output()).state == "success"

    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    server.answers[f"GET {RUN}"] = (503, {})
    with pytest.raises(module.UnreachableError):
        module.follow(platform, "p", "r", Output())


def test_a_terminal_shows_the_running_log_and_keeps_only_the_steps(server, story):
    from rich.console import Console

    log = {"content": [{"event": "epoch 7", "level": "info"}], "continuation_token": "a"}
    for task in ("fetch", "train"):
        server.answers[f"GET {RUN}/taskInstances/{task}/logs/1"] = [
            (200, log),
            (200, {"content": []}),
        ]
    output = Output()
    screen = io.StringIO()
    output.progress = Console(file=screen, force_terminal=True, force_interactive=True, width=80)
    looks = [("running", None)] * 30 + [("success", "success")]
    module.follow(story(*looks), "p", "r", output)
    assert "epoch 7" in screen.getvalue()
    last = screen.getvalue().rpartition("fetch")[2]
    assert "train" in last
    assert "epoch" not in last
