"""The pipeline templates that ship, and those that a person adds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import SpecError
from tracklayer.settings import resource
from tracklayer.spec import RUNS, known_templates, load_template

if TYPE_CHECKING:
    from tests.dags.conftest import Structure as _Structure

FOLDER = resource("dags/templates")


@pytest.mark.parametrize("name", sorted(known_templates([FOLDER])))
def test_a_template_that_ships_can_be_read_and_says_what_it_is(name: str) -> None:
    template = load_template(name, [FOLDER])
    assert str(template) == name
    assert template.description
    kinds = {step.kind for step in template.steps.values()}
    assert kinds == {"setup", "task", "teardown"}


def test_the_folder_has_nothing_but_templates() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name.replace('@', '.v')}.yaml" for name in known_templates([FOLDER])
    }


def test_a_template_added_as_a_file_needs_no_python(
    own_templates: Path, structure_of: type[_Structure]
) -> None:
    (own_templates / "only-data.v3.yaml").write_text(
        """\
description: Fetch and nothing else
steps:
  hello: {run: noop}
  get:   {run: fetch, each: sources, after: [hello]}
  bye:   {run: noop, after: [get]}
"""
    )
    spec = "name: mine\ntemplate: only-data@3\nsources: {b: 'path:b', a: 'path:a'}\n"
    structure = structure_of(spec)
    assert {name: structure.upstream(name) for name in structure.tasks} == {
        "hello": [],
        "get-b": ["hello"],
        "get-a": ["hello"],
        "bye": ["get-a", "get-b"],
    }
    assert list(structure.tasks) == ["hello", "get-b", "get-a", "bye"], "in the order of the spec"


def test_a_template_of_ones_own_goes_before_the_one_that_ships(
    own_templates: Path, structure_of: type[_Structure]
) -> None:
    own = own_templates / "train-and-deploy.v1.yaml"
    own.write_text("steps: {train: {run: train}}\n")
    structure = structure_of("name: a\ntemplate: train-and-deploy@1\ntrain: {script: a.py}\n")
    assert list(structure.tasks) == ["train"]


def test_a_template_can_run_every_step_there_is(
    own_templates: Path, structure_of: type[_Structure]
) -> None:
    lines = [
        f"  s{index}: {{run: {name}{', each: sources' if run.each else ''}}}"
        for index, (name, run) in enumerate(RUNS.items())
    ]
    (own_templates / "all.v1.yaml").write_text("steps:\n" + "\n".join(lines) + "\n")
    spec = (
        "name: a\ntemplate: all@1\nsources: {d: 'path:d'}\ntrain: {script: a.py}\n"
        "evaluate: {metric: m, minimum: 0}\n"
    )
    assert len(structure_of(spec).tasks) == len(RUNS)


@pytest.mark.parametrize(
    ("template", "place", "said"),
    [
        ("steps: {a: {run: no-such}}\n", ":1:18: ", "no step can run"),
        ("steps: {a: {run: noop, after: [b]}}\n", ":1:32: ", "is no step"),
        ("steps:\n  a: {run: noop, after: [b]}\n  b: {run: noop, after: [a]}\n", ":2:3: ", "wait"),
    ],
)
def test_a_broken_template_says_where(
    own_templates: Path,
    structure_of: type[_Structure],
    template: str,
    place: str,
    said: str,
) -> None:
    path = own_templates / "mine.v1.yaml"
    path.write_text(template)
    with pytest.raises(SpecError, match=said) as caught:
        structure_of("name: a\ntemplate: mine@1\n")
    assert str(caught.value).startswith(f"{path}{place}")


def test_an_unknown_template_is_the_specs_mistake(structure_of: type[_Structure]) -> None:
    with pytest.raises(SpecError) as caught:
        structure_of("name: a\ntemplate: train-and-deplyo@1\ntrain: {script: a.py}\n")
    assert str(caught.value).startswith("a/tracklayer.yaml:2:11: ")
    assert "Did you mean `train-and-deploy@1`?" in str(caught.value)
