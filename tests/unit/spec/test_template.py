"""Templates: the two that ship, and what is said about one that is wrong."""

from pathlib import Path

import pytest

from tracklayer.errors import SpecError
from tracklayer.settings import resource
from tracklayer.spec import RUNS, SECTIONS, Spec, Template, known_templates, load_template, loads

SHIPPED = [resource("dags/templates")]
PRETRAINED = "name: a\ntemplate: deploy-pretrained@1\nsources: {model: path:model}\n"


def write(folder: Path, text: str, name: str = "own.v1.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def edges(template: Template, spec: Spec) -> dict[str, tuple[str, ...]]:
    return {step.id: step.after for step in template.plan(spec)}


def test_train_and_deploy(digits: str) -> None:
    template = load_template("train-and-deploy@1", SHIPPED)
    assert str(template) == "train-and-deploy@1"
    assert edges(template, loads(digits)) == {
        "provision": (),
        "configure": ("provision",),
        "fetch-data": ("configure",),
        "packages": ("configure",),
        "train": ("fetch-data", "packages"),
        "evaluate": ("train",),
        "register": ("evaluate",),
        "deploy": ("register",),
        "verify": ("deploy",),
        "release": ("verify",),
    }
    kinds = {step.id: (step.kind, step.of) for step in template.plan(loads(digits))}
    assert kinds["provision"] == ("setup", None)
    assert kinds["release"] == ("teardown", "provision")
    shorter = loads(digits.replace("evaluate:", "# evaluate:"))
    assert edges(template, shorter)["register"] == ("train",)


def test_deploy_pretrained() -> None:
    template = load_template("deploy-pretrained@1", SHIPPED)
    assert edges(template, loads(PRETRAINED)) == {
        "provision": (),
        "configure": ("provision",),
        "fetch-model": ("configure",),
        "register": ("fetch-model",),
        "deploy": ("register",),
        "verify": ("deploy",),
        "release": ("verify",),
    }


def test_the_spec_lacks_what_the_template_needs() -> None:
    spec = loads("# first\nname: a\ntemplate: train-and-deploy@1\n")
    with pytest.raises(SpecError) as caught:
        load_template(spec.template, SHIPPED).plan(spec)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (3, 11)
    assert problem.message == "the template train-and-deploy@1 needs `train` for its step `train`"

    spec = loads(PRETRAINED.replace("model:", "data:"))
    (problem,) = load_template(spec.template, SHIPPED).problems(spec)
    assert (problem.line, problem.column) == (2, 11)
    assert problem.message == "the template deploy-pretrained@1 needs `sources.model`"


def test_the_spec_says_what_no_step_reads() -> None:
    spec = loads(
        PRETRAINED
        + "deploy: {replicas: 2}\nevaluate: {metric: a}\n"
        + "train: {script: a.py}\npackages: {requirements: [a]}\n"
    )
    found = load_template(spec.template, SHIPPED).problems(spec)
    assert [(p.line, p.column, p.message) for p in found] == [
        (5, 1, "`evaluate` is not used by the template deploy-pretrained@1"),
        (6, 1, "`train` is not used by the template deploy-pretrained@1"),
        (7, 1, "`packages` is not used by the template deploy-pretrained@1"),
    ]
    again = Spec.model_validate(loads(PRETRAINED).model_dump(mode="json"))
    assert load_template(spec.template, SHIPPED).problems(again) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (
            "train-and-deplo@1",
            "Did you mean `train-and-deploy@1`? Allowed: deploy-pretrained@1, tr",
        ),
        ("train-and-deploy@9", "Did you mean `train-and-deploy@1`?"),
        ("nothing@1", "Allowed: deploy-pretrained@1, train-and-deploy@1."),
    ],
)
def test_no_such_template(name: str, hint: str) -> None:
    spec = loads(f"name: a\ntemplate: {name}\n")
    with pytest.raises(SpecError) as caught:
        load_template(name, SHIPPED, positions=spec.positions)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == ("tracklayer.yaml", 2, 11)
    assert problem.message == f"there is no template `{name}`"
    assert problem.hint.startswith(hint)


def test_a_file_is_all_that_a_new_template_takes(tmp_path: Path) -> None:
    chain = "".join(f"  s{i}: {{run: noop, after: [s{i - 1}]}}\n" for i in range(1, 10))
    write(tmp_path, "steps:\n  s0: {run: noop}\n" + chain, "chain.v3.yaml")
    write(tmp_path, "steps: {x: {run: noop}}", "train-and-deploy.v1.yaml")
    write(tmp_path, "not a template", "notes.yaml")
    template = load_template("chain@3", [tmp_path, *SHIPPED])
    assert (template.name, template.version) == ("chain", 3)
    planned = template.plan(loads("name: a\ntemplate: chain@3\n"))
    assert [step.id for step in planned] == [f"s{i}" for i in range(10)]
    assert list(known_templates([tmp_path, *SHIPPED])) == [
        "chain@3",
        "train-and-deploy@1",
        "deploy-pretrained@1",
    ]
    assert list(load_template("train-and-deploy@1", [tmp_path, *SHIPPED]).steps) == ["x"]


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("steps: {}", 1, 8, "must have at least 1 entry"),
        ("stps: {a: {run: noop}}", 1, 1, "unknown key `stps` | Did you mean `steps`?"),
        (
            "steps: {a: {run: trian}}",
            1,
            18,
            "`trian`, which no step can run | Did you mean `train`",
        ),
        ("steps: {a: {run: bash}}", 1, 18, "Allowed: provision, configure, fetch, packages"),
        ("steps: {a: {ru: noop}}", 1, 13, "unknown key `steps.a.ru` | Did you mean `run`?"),
        (
            "steps: {a-b: {run: noop}}",
            1,
            9,
            "the name `a-b` must be lower-case letters, digits and",
        ),
        ("steps: {a: {run: noop, when: evalute}}", 1, 30, "Did you mean `evaluate`?"),
        ("steps: {a: {run: noop, kind: cleanup}}", 1, 30, "Allowed: task, setup, teardown."),
        ("steps: {a: {run: fetch, each: files}}", 1, 31, "Allowed: sources."),
        ("requires: [model]\nsteps: {a: {run: noop}}", 1, 12, "`model`, which is no section"),
        (
            "steps:\n  one: {run: noop}\n  two:\n    run: noop\n    after: [one, onee]",
            5,
            18,
            "`two` comes after `onee`, which is no step | Did you mean `one`? Allowed: one, two.",
        ),
        ("steps: {a: {run: noop, after: [b, b]}, b: {run: noop}}", 1, 35, "`a` names `b` twice"),
        ("steps: {a: {run: noop, after: [a]}}", 1, 9, "wait for each other: a -> a"),
        (
            "steps:\n  x: {run: noop}\n  a: {run: noop, after: [c, x]}\n"
            "  b: {run: noop, after: [a]}\n  c: {run: noop, after: [b]}",
            3,
            3,
            "wait for each other: a -> b -> c -> a",
        ),
        ("steps: {a: {run: noop, kind: teardown}}", 1, 9, "the teardown `a` needs `of:`"),
        (
            "steps: {a: {run: noop, kind: teardown, of: b}, b: {run: noop}}",
            1,
            44,
            "the teardown `a` needs `of:`",
        ),
        ("steps: {a: {run: noop, of: b}, b: {run: noop}}", 1, 28, "`of` is for a teardown"),
        (
            "steps: {u: {run: noop, kind: setup}, d: {run: noop, kind: teardown, of: u},"
            " x: {run: noop, after: [d]}}",
            1,
            100,
            "`x` cannot wait for `d`, a teardown",
        ),
        ("steps: {a: {run: fetch}}", 1, 18, "`run: fetch` is for one entry | Add `each: sources`."),
        ("steps: {a: {run: train, each: sources}}", 1, 31, "`run: train` is not for one entry"),
        (
            "steps: {a: {run: fetch, each: sources, kind: setup}}",
            1,
            31,
            "`each` is for a task, and `a` is a setup",
        ),
        ("steps: [", 2, 1, "not valid YAML"),
        ("steps: {a: {run: '{{ x }}'}}", 1, 18, "starts a template"),
    ],
)
def test_a_wrong_template_is_located_in_its_file(
    tmp_path: Path, text: str, line: int, column: int, said: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_template("own@1", [tmp_path])
    problems = [p for p in caught.value.problems if "missing" not in p.message]
    problem = problems[0]
    assert (problem.file, problem.line, problem.column) == (str(path), line, column)
    assert said in f"{problem.message} | {problem.hint}"


def test_all_that_is_wrong_with_a_template_at_once(tmp_path: Path) -> None:
    write(tmp_path, "steps:\n  a: {run: noop, after: [x]}\n  b: {run: noop, after: [y], of: a}\n")
    with pytest.raises(SpecError) as caught:
        load_template("own@1", [tmp_path])
    assert [(p.line, p.column) for p in caught.value.problems] == [(2, 26), (3, 26), (3, 34)]


def test_sections_are_those_of_the_spec() -> None:
    assert set(SECTIONS) <= set(Spec.model_fields)
    assert {"provision", "fetch", "train", "noop"} <= set(RUNS)
