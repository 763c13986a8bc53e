"""From a template's steps to the steps of one DAG."""

import subprocess
import sys

from tracklayer.spec.plan import PlannedStep, resolve
from tracklayer.spec.template import Step


def steps(**found: dict[str, object]) -> dict[str, Step]:
    return {name: Step.model_validate({"run": "noop", **step}) for name, step in found.items()}


def edges(planned: list[PlannedStep]) -> dict[str, list[str]]:
    return {step.id: list(step.after) for step in planned}


def test_predecessors_come_first_and_the_order_of_the_file_is_kept() -> None:
    found = steps(d={"after": ["c"]}, a={}, c={"after": ["a", "b"]}, b={})
    assert edges(resolve(found, (), {})) == {"a": [], "b": [], "c": ["a", "b"], "d": ["c"]}
    assert [step.id for step in resolve(found, (), {})] == ["a", "b", "c", "d"]


def test_a_step_left_out_hands_its_predecessors_on() -> None:
    found = steps(
        a={},
        b={},
        c={"after": ["a", "b"], "when": "evaluate"},
        d={"after": ["c"], "when": "train"},
        e={"after": ["d", "a"]},
    )
    assert edges(resolve(found, ["train", "evaluate"], {}))["e"] == ["d", "a"]
    assert edges(resolve(found, ["evaluate"], {}))["e"] == ["c", "a"]
    assert edges(resolve(found, (), {})) == {"a": [], "b": [], "e": ["a", "b"]}


def test_many_steps_left_out_are_no_work() -> None:
    found = {"s0": {}}
    for i in range(1, 90, 2):  # diamonds: each doubles the ways from the first step to the last
        before = [f"s{i - 1}"] if i == 1 else [f"s{i - 2}", f"s{i - 1}"]
        found |= {f"s{j}": {"after": before, "when": "train"} for j in (i, i + 1)}
    last = {"end": {"after": ["s89", "s90"]}}
    assert edges(resolve(steps(**found, **last), (), {})) == {"s0": [], "end": ["s0"]}


def test_one_step_for_each_source() -> None:
    found = steps(
        a={}, fetch={"run": "fetch", "each": "sources", "after": ["a"]}, z={"after": ["fetch"]}
    )
    planned = resolve(found, (), {"sources": ["x", "b_c"]})
    assert edges(planned) == {
        "a": [],
        "fetch-x": ["a"],
        "fetch-b_c": ["a"],
        "z": ["fetch-x", "fetch-b_c"],
    }
    assert [step.item for step in planned] == [None, "x", "b_c", None]
    assert edges(resolve(found, (), {"sources": []})) == {"a": [], "z": ["a"]}


def test_a_teardown_waits_for_everything_that_nothing_waits_for() -> None:
    found = steps(
        gone={"kind": "teardown", "of": "up"},
        up={"kind": "setup"},
        a={"after": ["up"]},
        b={"after": ["up"]},
        c={"after": ["a"]},
    )
    planned = resolve(found, (), {})
    assert planned[-1] == PlannedStep("gone", "noop", ("b", "c"), "teardown", "up")
    assert edges(
        resolve(steps(up={"kind": "setup"}, down={"kind": "teardown", "of": "up"}), (), {})
    ) == {
        "up": [],
        "down": ["up"],
    }


def test_two_teardowns_in_the_order_that_they_name() -> None:
    found = steps(
        one={"kind": "setup"},
        two={"kind": "setup", "after": ["one"]},
        work={"after": ["two"]},
        down_one={"kind": "teardown", "of": "one", "after": ["down_two"]},
        down_two={"kind": "teardown", "of": "two"},
    )
    assert edges(resolve(found, (), {})) == {
        "one": [],
        "two": ["one"],
        "work": ["two"],
        "down_two": ["work"],
        "down_one": ["down_two"],
    }


def test_a_setup_left_out_takes_its_teardown_along() -> None:
    found = steps(
        up={"kind": "setup", "when": "train"},
        a={"after": ["up"]},
        down={"kind": "teardown", "of": "up"},
    )
    assert list(edges(resolve(found, (), {}))) == ["a"]
    assert list(edges(resolve(found, ["train"], {}))) == ["up", "a", "down"]


def test_the_plan_is_the_same_in_every_process(digits: str) -> None:
    code = (
        "from tracklayer.settings import resource;"
        "from tracklayer.spec import loads, load_template;"
        f"spec = loads({digits!r});"
        "print(load_template(spec.template, [resource('dags/templates')]).plan(spec), spec)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(outputs) == 1
    assert "fetch-data" in outputs.pop()
