"""Whatever a file holds, the loader gives a spec or located problems; what it gives, it reads."""

import json
import re
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tracklayer.errors import Problem, SpecError
from tracklayer.spec import Spec, json_schema, loads
from tracklayer.spec.fields import PRESETS

VALIDATOR = Draft202012Validator(json_schema())


def read(text: str | bytes) -> None:
    """Read a text, which may be wrong in no other way than with problems inside of it."""
    try:
        found: Spec | list[Problem] = loads(text)
    except SpecError as error:
        found = error.problems
    if isinstance(found, list):
        decoded = text.decode(errors="replace") if isinstance(text, bytes) else text
        lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", decoded)  # as YAML counts them
        assert found
        for problem in found:
            assert problem.message
            assert 1 <= problem.line <= len(lines) + 1  # +1: the end of the file
            line = lines[problem.line - 1] if problem.line <= len(lines) else ""
            assert 1 <= problem.column <= len(line) + 1
        places = [(problem.line, problem.column) for problem in found]
        assert places == sorted(places)


@settings(deadline=None)
@given(st.text())
@example("\ud800")
@example("a: \x85b")
def test_any_text(text: str) -> None:
    read(text)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    read(data)


PIECES = [
    *("name", "template", "train", "script", "sources", "evaluate", "metric", "hyperparameters"),
    *("a", "t@1", "a.py", "path:x", "1", "0.5", "no", "null", "1e999", "2024-01-01", "<<", "{{"),
    *(": ", ":\n  ", "\n", "\n- ", ", ", "[", "]", "{", "}", '"', "'", "&a ", "*a", "!!int ", "\t"),
    *("? ", "- ", "|\n ", "> ", "# ", "---\n", "...", "%", "@", "\\", "é", "\r\n"),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_texts_made_of_yaml_and_of_keys(text: str) -> None:
    read(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from([*Spec.model_fields, "hyperparameters", "resources", "value", "after"])


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON, max_size=4), max_size=6))
def test_values_of_any_type_in_any_place(data: dict[str, Any]) -> None:
    read(yaml.safe_dump(data, sort_keys=False))
    read(json.dumps(data))


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)
SOURCE_NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
HYPERPARAMETER_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f{\ufeff").filter(
        lambda c: not 0x80 <= ord(c) < 0xA0
    ),
    max_size=40,
)
BOUNDED = (
    st.lists(NUMBERS, min_size=3, max_size=3)
    .map(sorted)
    .map(lambda three: {"minimum": three[0], "value": three[1], "maximum": three[2]})
)
CHOICES = st.lists(TEXT, min_size=1, max_size=4, unique=True).map(
    lambda texts: {"value": texts[-1], "enum": texts}
)
EVALUATIONS = st.fixed_dictionaries(
    {"metric": st.sampled_from(["accuracy", "val/loss"])},
    optional={"no_worse_than_champion": st.floats(0, 1)},
).flatmap(
    lambda rule: st.sampled_from(
        [
            rule,
            {**rule, "minimum": 0.5},
            {**rule, "maximum": 2, "mode": "min"},
            {**rule, "mode": "max"},
        ]
    )
)
ROLLOUTS = st.fixed_dictionaries(
    {},
    optional={
        "strategy": st.sampled_from(["rolling", "canary"]),
        "steps": st.sets(st.integers(1, 99), min_size=1, max_size=20).map(sorted),
        "bake": st.integers(1, 10**6).map(lambda seconds: f"{seconds}s"),
        "gates": st.fixed_dictionaries(
            {},
            optional={
                "error_rate": st.floats(0, 1),
                "latency": st.floats(1, 100) | st.integers(1, 100),
                "golden": st.booleans(),
            },
        ),
    },
)
SPECS = st.fixed_dictionaries(
    {"name": NAMES, "template": NAMES.map(lambda name: f"{name}@1")},
    optional={
        "description": TEXT,
        "target": NAMES,
        "sources": st.dictionaries(
            SOURCE_NAMES, TEXT.map(lambda text: f"path:x{text}"), max_size=4
        ),
        "packages": st.fixed_dictionaries(
            {
                "requirements": st.lists(
                    st.sampled_from(["a", "torch==2.13.0", "x[y]>=1"]), max_size=3
                )
            }
        ),
        "train": st.fixed_dictionaries(
            {"script": st.sampled_from(["a.py", "code/train_1.py"])},
            optional={
                "hyperparameters": st.dictionaries(
                    HYPERPARAMETER_NAMES,
                    NUMBERS | st.booleans() | TEXT | BOUNDED | CHOICES,
                    max_size=5,
                ),
                "resources": st.fixed_dictionaries(
                    {},
                    optional={
                        "cpus": st.floats(0.01, 64) | st.integers(1, 64),
                        "memory": st.integers(16, 10**6).map(lambda size: f"{size}MiB"),
                        "gpus": st.integers(0, 8),
                        "timeout": st.integers(1, 10**6).map(lambda seconds: f"{seconds}s"),
                    },
                ),
                "metrics": st.just({"loss": r"loss=([0-9.]+)"}),
            },
        ),
        "evaluate": EVALUATIONS,
        "deploy": st.fixed_dictionaries(
            {"replicas": st.integers(1, 64)},
            optional={
                "keep": st.integers(0, 20),
                "access": st.sampled_from(["open", "keys"]),
                "allow": st.sampled_from([[], ["code"]]),
                "rollout": ROLLOUTS,
            },
        ),
        "schedule": st.sampled_from([*PRESETS, "0 3 * * 1", {"after": ["zz0/x", "zz1/model"]}]),
    },
)


class Writer(yaml.SafeDumper):
    """Quotes what looks like a number: a text of digits such as 08 is one to some readers only."""


def write_text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if re.match(r"[-+.]?[0-9]", text) else None
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Writer.add_representer(str, write_text)


@settings(max_examples=150, deadline=None)
@given(SPECS)
@example({"name": "a", "template": "a@1", "description": "08"})
def test_a_valid_spec_loads_validates_and_survives_a_dump(data: dict[str, Any]) -> None:
    spec = loads(yaml.dump(data, Dumper=Writer, sort_keys=False, allow_unicode=True, width=10**6))
    assert list(VALIDATOR.iter_errors(data)) == []
    dumped = spec.model_dump(mode="json", exclude_none=True)
    assert list(VALIDATOR.iter_errors(dumped)) == []
    assert Spec.model_validate(spec.model_dump(mode="json")) == spec
    again = loads(yaml.dump(dumped, Dumper=Writer, sort_keys=False))
    assert again == spec
    assert again.model_dump_json() == spec.model_dump_json()
    assert loads(json.dumps(dumped)) == spec
    for name, written in data.get("train", {}).get("hyperparameters", {}).items():
        value = written["value"] if isinstance(written, dict) else written
        assert spec.train.values()[name] == value
        assert type(spec.train.values()[name]) is type(value)
