"""The JSON Schema accepts what loads, and shows editors what does not."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tracklayer.spec import json_schema, loads


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_what_loads_is_valid(validator: Draft202012Validator, digits: str) -> None:
    written = yaml.safe_load(digits)
    assert list(validator.iter_errors(written)) == []
    dumped = loads(digits).model_dump(mode="json", exclude_none=True)
    assert list(validator.iter_errors(dumped)) == []
    assert list(validator.iter_errors({**written, "schedule": {"after": ["a/model"]}})) == []


@pytest.mark.parametrize(
    "change",
    [
        {"nam": "x"},
        {"name": "X"},
        {"train": None},
        {"train": {"script": "../a.py"}},
        {"train": {"script": "a.py", "image": "x"}},
        {"train": {"script": "a.py", "hyperparameters": {"a": [1]}}},
        {"train": {"script": "a.py", "hyperparameters": {"a b": 1}}},
        {"train": {"script": "a.py", "resources": {"memory": 4}}},
        {"train": {"script": "a.py", "resources": {"timeout": "1 hour"}}},
        {"sources": {"Data": "path:a"}},
        {"sources": {"data": "a"}},
        {"deploy": {"optimize": "fast"}},
        {"deploy": {"optimize": {"budget": 2}}},
        {"deploy": {"access": "closed"}},
        {"deploy": {"rollout": {"steps": [0]}}},
        {"deploy": {"rollout": {"bake": "soon"}}},
        {"schedule": {"after": ["x"]}},
        {"schedule": 5},
    ],
    ids=str,
)
def test_what_does_not_load_is_shown(
    validator: Draft202012Validator, digits: str, change: dict[str, Any]
) -> None:
    assert list(validator.iter_errors({**yaml.safe_load(digits), **change}))


def _properties(schema: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for inner in schema.values():
            yield from _properties(inner)


def test_every_field_is_described_for_editors() -> None:
    schema = json_schema()
    assert schema["$id"] == "tracklayer.yaml"
    assert schema["$schema"].endswith("2020-12/schema")
    found = dict(_properties(schema))
    assert {"name", "script", "memory", "enum", "after", "requirements"} <= found.keys()
    assert [name for name, field in _properties(schema) if not field.get("description")] == []
    assert (found["memory"]["default"], found["timeout"]["default"]) == ("2GiB", "1h")
    assert "null" not in str(schema)
    assert schema == json_schema()
