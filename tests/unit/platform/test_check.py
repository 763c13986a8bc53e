"""What is wrong with a project on this platform."""

import pytest

from tracklayer.platform.check import problems
from tracklayer.spec import loads

COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


def found(source: str) -> list[str]:
    text = f"name: a\ntemplate: deploy-pretrained@1\nsources:\n  model: {source}\n"
    return [str(problem) for problem in problems(loads(text))]


@pytest.mark.parametrize(
    "source",
    [
        f"hf://org/model@{COMMIT}",
        "hf://org/model@main",
        f'{{uri: "hf://org/model@{COMMIT}", allow: [pickle]}}',
        '{uri: "kaggle://datasets/a/b@3", allow: [unknown]}',
        '{uri: "kaggle://datasets/a/b"}',
    ],
)
def test_sources_that_are_right(source: str) -> None:
    assert found(source) == []


def test_what_may_run_code_has_to_be_one_that_cannot_change() -> None:
    (problem,) = found('{uri: "hf://org/model@main", allow: [pickle]}')
    assert problem.startswith("tracklayer.yaml:4:")
    assert "'hf://org/model@main'" in problem
    assert "commit, version or digest" in problem


def test_a_handle_that_is_none() -> None:
    (problem,) = found("ftp://host/file")
    assert "unknown kind of source" in problem
