from __future__ import annotations

import pytest

from tracklayer.errors import Problem
from tracklayer.projects import check_repository
from tracklayer.spec import Spec


def text(name: str, *lines: str) -> str:
    base = [f"name: {name}", "template: train-and-deploy@1", "train: {script: train.py}"]
    return "\n".join([*base, *lines]) + "\n"


def problems(texts: dict[str, str]) -> dict[str, list[Problem]]:
    found = check_repository(texts)
    assert list(found) == list(texts)
    return {folder: got for folder, got in found.items() if not isinstance(got, Spec)}


def test_good_projects_are_specs() -> None:
    found = check_repository({"a": text("a"), "b": text("b", "schedule: {after: [a/model]}")})
    assert [spec.name for spec in found.values() if isinstance(spec, Spec)] == ["a", "b"]


def test_a_broken_spec_hurts_nobody_else() -> None:
    broken = problems({"a": text("a", "nonsense: 1"), "b": text("b")})
    assert list(broken) == ["a"]
    (problem,) = broken["a"]
    assert (problem.file, problem.line, problem.column) == ("a/tracklayer.yaml", 4, 1)


def test_the_folder_has_the_projects_name() -> None:
    (problem,) = problems({"x": text("y")})["x"]
    assert (problem.line, problem.column) == (1, 7)
    assert problem.message == "`name` is y, but the folder is x"
    assert problem.hint
    assert "name: x" in problem.hint


def test_two_projects_of_one_name_leave_the_rightful_one() -> None:
    broken = problems({"y": text("y"), "x": text("y")})
    assert list(broken) == ["x"]
    assert "the folder y has a project of that name" in broken["x"][0].message


@pytest.mark.parametrize(
    ("asset", "message", "hint"),
    [
        ("nobody/model", "there is no project nobody to follow", "Known: a."),
        ("a/rows", "the project a has no rows to follow", "It has: model, data."),
    ],
)
def test_what_is_followed_exists(asset: str, message: str, hint: str) -> None:
    upstream = text("a", "sources: {data: 'path:data.csv'}")
    good = text("b", "schedule: {after: [a/model, a/data]}")
    assert problems({"a": upstream, "b": good}) == {}
    bad = text("b", "schedule:", f"  after: [a/model, {asset}]")
    (problem,) = problems({"a": upstream, "b": bad})["b"]
    assert (problem.line, problem.column) == (5, 20)
    assert (problem.message, problem.hint) == (message, hint)


def test_a_broken_project_can_be_followed() -> None:
    """It may be mended at any time, and its last valid version still runs."""
    broken = problems({"a": "name: [", "b": text("b", "schedule: {after: [a/model]}")})
    assert list(broken) == ["a"]


def test_every_member_of_every_cycle_is_told_the_way() -> None:
    broken = problems(
        {
            "a": text("a", "schedule: {after: [b/model]}"),
            "b": text("b", "schedule: {after: [a/model]}"),
            "c": text("c", "schedule: {after: [d/model]}"),
            "d": text("d", "schedule: {after: [e/model]}"),
            "e": text("e", "schedule: {after: [c/model]}"),
            "waits": text("waits", "schedule: {after: [a/model]}"),
            "free": text("free"),
        }
    )
    assert list(broken) == ["a", "b", "c", "d", "e"]
    assert broken["a"][0].message == "these projects wait for each other: a → b → a"
    assert broken["d"][0].message == "these projects wait for each other: c → d → e → c"
    assert (broken["d"][0].line, broken["d"][0].column) == (4, 19)
