"""Other pipelines: a model that exists already, and a shape of one's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Platform


def test_a_given_model_is_served_without_training(platform: Platform) -> None:
    made = platform.json("new", "given", "--template", "deploy-pretrained@1")
    folder = made["folder"]
    platform.tracklayer("push", folder)
    outcome = platform.json("run", "given", "--follow")
    assert [
        step["step"] for step in outcome["steps"] if step["step"] in ("packages", "train")
    ] == []
    assert outcome["state"] == "success"
    answer = platform.json("predict", "given", f"{folder}/request.json")
    assert answer["model_version"] == "1"
    (probability,) = answer["outputs"]
    assert probability["shape"] == [2, 1]
    assert probability["data"][0] < 0.5 < probability["data"][1]


def test_a_template_is_a_file_and_needs_no_python(platform: Platform, tmp_path: Path) -> None:
    shape = "steps:\n  one: {run: noop}\n  two: {run: noop, after: [one]}\n"
    (platform.templates / "own-shape.v3.yaml").write_text(shape)
    folder = tmp_path / "shaped"
    folder.mkdir()
    (folder / "tracklayer.yaml").write_text("name: shaped\ntemplate: own-shape@3\n")
    platform.tracklayer("push", str(folder))
    outcome = platform.json("run", "shaped", "--follow")
    assert [(step["step"], step["state"]) for step in outcome["steps"]] == [
        ("one", "success"),
        ("two", "success"),
    ]


@pytest.mark.parametrize(
    ("template", "said"),
    [("own-shape@4", "own-shape@4"), ("train-and-deply@1", "train-and-deploy@1")],
)
def test_a_template_that_does_not_exist_is_told_at_once(
    platform: Platform, tmp_path: Path, template: str, said: str
) -> None:
    (tmp_path / "tracklayer.yaml").write_text(f"name: lost\ntemplate: {template}\n")
    failed = platform.json("push", str(tmp_path), fails=2)
    (problem,) = failed["error"]["problems"]
    assert (problem["line"], problem["column"]) == (2, 11)
    assert said in json.dumps(problem)
