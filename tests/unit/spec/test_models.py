"""Rules between fields."""

import pytest

from tracklayer.spec import Evaluate, Hyperparameter, Spec, loads

HYPER = "train:\n  script: a.py\n  hyperparameters:\n    a: "


@pytest.mark.parametrize(
    ("written", "constraints"),
    [
        ("5", {"type": "integer"}),
        ("0.5", {"type": "number"}),
        ("adam", {"type": "string"}),
        ("true", {"type": "boolean"}),
        ("{value: 5, minimum: 1, maximum: 9}", {"type": "integer", "minimum": 1, "maximum": 9}),
        ("{value: 0.1, minimum: 0}", {"type": "number", "minimum": 0}),
        ("{value: a, enum: [a, b]}", {"type": "string", "enum": ["a", "b"]}),
        ("{value: 1, enum: [1, 2], description: x}", {"type": "integer", "enum": [1, 2]}),
    ],
)
def test_a_hyperparameter_says_what_a_run_may_set(
    written: str, constraints: dict[str, object]
) -> None:
    spec = loads(f"name: a\ntemplate: t@1\n{HYPER}{written}")
    found = spec.train.hyperparameters["a"]
    assert found.constraints() == constraints
    assert repr(found.constraints()) == repr(constraints)  # 1 and not 1.0
    assert type(spec.train.values()["a"]) is type(found.value)


def marked(text: str) -> tuple[str, int, int]:
    """A text without its mark, and the line and column of the mark after two lines more."""
    before, _, after = text.partition("§")
    return before + after, before.count("\n") + 3, len(before) - before.rfind("\n")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{value: 0, minimum: §1}", "minimum` excludes the value itself, 0"),
        ("{value: 2, maximum: §1.5}", "maximum` excludes the value itself, 2"),
        ("{value: 2, minimum: 1, maximum: §0}", "maximum` must not be less than the minimum, 1"),
        ("{value: a, minimum: §1}", "minimum` is only for a number | For texts, list"),
        ("{value: true, maximum: §1}", "maximum` is only for a number"),
        ("{value: 1, minimum: §'0'}", "minimum` must be a number"),
        ("{value: 1, minimum: §false}", "minimum` must be a number"),
        ("{value: a, enum: §[b]}", "enum` must contain the value itself, a"),
        ("{value: 1, enum: §[1, 2.0]}", "enum` must have values of the same type"),
        ("{value: 1, enum: §[1, true]}", "enum` must have values of the same type"),
        ("{value: 1, enum: §[1, 1]}", "enum` has a value twice"),
        ("{value: 1, enum: §[]}", "enum` must have at least 1 entry"),
        ("{value: 1, enum: [§[1]]}", "enum[0]` must be a number, a text, true or false"),
        ("{value: 1, minimum: 0, enum: §[1]}", "enum` goes with no `minimum`"),
        (f"§'{'x' * 5000}'", "must have at most 4096 characters"),
    ],
)
def test_a_hyperparameter_must_fit_its_own_bounds(refusal, written: str, said: str) -> None:
    text, line, column = marked(HYPER + written)
    found = refusal(text)
    assert found[:2] == (line, column)
    assert said in found[2]


@pytest.mark.parametrize(
    ("rule", "higher"),
    [
        ({"metric": "a"}, True),
        ({"metric": "a", "minimum": 1}, True),
        ({"metric": "a", "maximum": 1}, False),
        ({"metric": "a", "mode": "min"}, False),
        ({"metric": "a", "mode": "max", "minimum": 1}, True),
        ({"metric": "a", "mode": "min", "maximum": 1}, False),
    ],
)
def test_which_way_is_better(rule: dict[str, object], higher: bool) -> None:
    assert Evaluate.model_validate(rule).higher_is_better is higher


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{metric: a, minimum: 1, maximum: §2}", "`evaluate.maximum` goes with no `minimum`"),
        ("{metric: a, mode: min, minimum: §1}", "`evaluate.minimum` contradicts `mode: min`"),
        ("{maximum: §1, mode: max, metric: a}", "`evaluate.maximum` contradicts `mode: max`"),
        ("{metric: a, minimum: §.nan}", "`.nan` is not a finite number"),
    ],
)
def test_a_rule_has_one_direction(refusal, rule: str, said: str) -> None:
    text, line, column = marked(f"evaluate: {rule}")
    found = refusal(text)
    assert found[:2] == (line, column)
    assert said in found[2]


def test_a_project_does_not_follow_itself(refusal) -> None:
    found = refusal("schedule: {after: [b/model, a/data]}")
    assert found == (3, 11, "`schedule` must not follow the project itself | None")


def test_a_spec_is_frozen_and_strict(digits: str) -> None:
    spec = loads(digits)
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"
    with pytest.raises(ValueError, match="finite"):
        Hyperparameter(value=1, minimum=float("nan"))
    assert Spec.model_validate(spec.model_dump(mode="json")) == spec
    assert Spec.model_validate(spec.model_dump()) == spec


TEXTS = [
    ("name", "name: VALUE\ntemplate: t@1\n", None),
    ("template", "name: a\ntemplate: VALUE\n", None),
    ("target", "name: a\ntemplate: t@1\ntarget: VALUE\n", None),
    ("source", "name: a\ntemplate: t@1\nsources: {a: VALUE}\n", None),
    ("source name", "name: a\ntemplate: t@1\nsources: {VALUE: path:a}\n", None),
    ("python", "name: a\ntemplate: t@1\npackages: {python: VALUE}\n", None),
    ("requirement", "name: a\ntemplate: t@1\npackages: {requirements: [VALUE]}\n", None),
    ("script", "name: a\ntemplate: t@1\ntrain: {script: VALUE}\n", None),
    ("hyperparameter name", "name: a\ntemplate: t@1\n" + HYPER.replace("a: ", "VALUE: 1\n"), None),
    ("memory", "name: a\ntemplate: t@1\ntrain: {script: a.py, resources: {memory: VALUE}}\n", None),
    (
        "timeout",
        "name: a\ntemplate: t@1\ntrain: {script: a.py, resources: {timeout: VALUE}}\n",
        None,
    ),
    ("metric name", "name: a\ntemplate: t@1\ntrain: {script: a.py, metrics: {VALUE: (a)}}\n", None),
    ("metric", "name: a\ntemplate: t@1\nevaluate: {metric: VALUE}\n", None),
    ("schedule", "name: a\ntemplate: t@1\nschedule: VALUE\n", None),
    ("asset", "name: a\ntemplate: t@1\nschedule: {after: [VALUE]}\n", None),
    ("optimize", "name: a\ntemplate: t@1\ndeploy: {optimize: VALUE}\n", None),
    # Free text is data: code in it is as harmless as any other words.
    ("description", "name: a\ntemplate: t@1\ndescription: VALUE\n", ("description",)),
    ("hyperparameter", f"name: a\ntemplate: t@1\n{HYPER}VALUE\n", ("train", "values")),
]


@pytest.mark.parametrize(("where", "text", "free"), TEXTS, ids=[where for where, _, _ in TEXTS])
def test_code_and_templates_in_every_text(
    refused, where: str, text: str, free: tuple[str, ...] | None
) -> None:
    line = text[: text.index("VALUE")].count("\n") + 1
    for value in ("{{ conn.x }}", "{% raw %}", "{# x #}", "a {{ 1 }}"):
        (found,) = refused(text.replace("VALUE", f'"{value}"'))
        assert found.line == line
        assert "starts a template" in found.message
    code = "__import__('os').system('id')"
    if free is None:
        found = refused(text.replace("VALUE", f'"{code}"'))
        assert found[0].line == line
    else:
        spec = loads(text.replace("VALUE", f'"{code}"'))
        assert code in (spec.description, *(spec.train.values().values() if spec.train else ()))
