"""The optimise step is in a DAG if the spec wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.dags.conftest import Structure as _Structure

TRAINED = "name: a\ntemplate: train-and-deploy@1\ntrain: {script: a.py}\n"
GIVEN = "name: a\ntemplate: deploy-pretrained@1\nsources: {model: 'path:m'}\n"


@pytest.mark.parametrize("spec", [TRAINED, GIVEN])
@pytest.mark.parametrize("wanted", ["auto", "{budget: 0.02}", "{metric: top1}"])
def test_it_comes_between_register_and_deploy(
    structure_of: type[_Structure], spec: str, wanted: str
) -> None:
    structure = structure_of(f"{spec}deploy: {{optimize: {wanted}}}\n")
    assert structure.upstream("optimize") == ["register"]
    assert structure.upstream("deploy") == ["optimize"]


@pytest.mark.parametrize("spec", [TRAINED, GIVEN])
@pytest.mark.parametrize("deploy", ["", "deploy: {optimize: none}\n", "deploy: {replicas: 2}\n"])
def test_otherwise_there_is_none(structure_of: type[_Structure], spec: str, deploy: str) -> None:
    structure = structure_of(spec + deploy)
    assert "optimize" not in structure.tasks
    assert structure.upstream("deploy") == ["register"]
