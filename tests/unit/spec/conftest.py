"""What the tests of the spec share."""

from collections.abc import Callable

import pytest

from tracklayer.errors import Problem, SpecError
from tracklayer.spec import loads

DIGITS = """\
name: digits
description: Handwritten digits, eight by eight
template: train-and-deploy@1
target: local
sources:
  data: path:data/optdigits.csv.gz
packages: {python: "3.11", requirements: [torch==2.13.0, pandas]}
train:
  script: train.py
  hyperparameters:
    epochs: 5
    learning-rate: {value: 0.001, minimum: 0, maximum: 1}
    optimizer: {value: adam, enum: [adam, sgd]}
  resources: {cpus: 2, memory: 4GiB, gpus: 0, timeout: 1h}
evaluate: {metric: accuracy, minimum: 0.95, no_worse_than_champion: 0.005}
deploy: {replicas: 2}
schedule: "@weekly"
"""


@pytest.fixture
def digits() -> str:
    """A spec that uses every section."""
    return DIGITS


@pytest.fixture
def refused() -> Callable[[str | bytes], list[Problem]]:
    """All problems of a text, which must have some."""

    def problems(text: str | bytes) -> list[Problem]:
        with pytest.raises(SpecError) as caught:
            loads(text)
        found = caught.value.problems
        assert found
        assert [(p.line, p.column) for p in found] == sorted((p.line, p.column) for p in found)
        assert {p.file for p in found} == {"tracklayer.yaml"}
        return found

    return problems


@pytest.fixture
def refusal(refused) -> Callable[[str], tuple[int, int, str]]:
    """The only problem of two required keys and the lines after them, as line, column, text."""

    def problem(lines: str) -> tuple[int, int, str]:
        (found,) = refused(f"name: a\ntemplate: t@1\n{lines}")
        return found.line, found.column, f"{found.message} | {found.hint}"

    return problem
