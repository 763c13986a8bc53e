"""Each kind of mistake: where it is shown, what is said, what is advised."""

import pytest

TRAIN = "train:\n  script: a.py\n  "


@pytest.mark.parametrize(
    ("lines", "line", "column", "said"),
    [
        # unknown keys
        ("targt: local", 3, 1, "unknown key `targt` | Did you mean `target`? Allowed: name, temp"),
        ("scripts: a", 3, 1, "unknown key `scripts` | "),
        ("script: a.py", 3, 1, "unknown key `script` | `script` belongs under `train`."),
        ("deploy:\n  replica: 2", 4, 3, "Did you mean `replicas`? Allowed: replicas, optimize,"),
        ("deploy: {rollout: {step: [10]}}", 3, 20, "Did you mean `steps`? Allowed: strategy,"),
        (TRAIN + "notebook: a.ipynb", 5, 3, "unknown key `train.notebook` | "),
        (TRAIN + "image: a", 5, 3, "unknown key `train.image` | "),
        (TRAIN + "hyperparameters: {a: {value: 1, max: 2}}", 5, 35, "Allowed: value, minimum,"),
        (TRAIN + "resources: {gpu: 1}", 5, 15, "Did you mean `gpus`?"),
        ('"[key]": 1', 3, 1, "unknown key `[key]`"),
        ('"<cron>": 1', 3, 1, "unknown key `<cron>`"),
        # missing keys: at the parent
        ("train: {}", 3, 1, "`train.script` is missing | Python file in the project"),
        ("evaluate:\n  minimum: 1", 3, 1, "`evaluate.metric` is missing"),
        (
            TRAIN + "hyperparameters: {a: {minimum: 1}}",
            5,
            21,
            "`train.hyperparameters.a.value` is m",
        ),
        # wrong types
        ("target: {train: aws}", 3, 9, "`target` must be text, not a mapping"),
        ("description: 5", 3, 14, '`description` must be text, not the number 5 | Quote it: "5"'),
        ("description: true", 3, 14, 'must be text, not true | Quote it: "true"'),
        ("packages: {python: 3.10}", 3, 20, 'not the number 3.10 | Quote it: "3.10"'),
        ("packages: {requirements: torch}", 3, 26, "Write a list: [torch]"),
        ("packages: [torch]", 3, 11, "not a list | Allowed keys: python, requirements."),
        ("sources: [path:a]", 3, 10, "`sources` must be a mapping of keys to values, not a list"),
        ("sources: {a: [path:a]}", 3, 14, "`sources.a` must be text, not a list"),
        ("train: train.py", 3, 8, "`train` must be a mapping of keys to values, not `train.py`"),
        ("deploy: {replicas: '2'}", 3, 20, "a whole number, not `2` | Write it without quotes: 2"),
        ("deploy: {replicas: 1.5}", 3, 20, "must be a whole number, not the number 1.5"),
        ("deploy: {replicas: true}", 3, 20, "must be a whole number, not true"),
        ("packages: {requirements: [a, 5]}", 3, 30, "`packages.requirements[1]` must be text"),
        ("packages: {requirements: [a, ~]}", 3, 30, "must be text, not nothing"),
        ("schedule: 5", 3, 11, "`schedule` must be text, not the number 5"),
        ("schedule: {after: b/model}", 3, 19, "must be a list, not `b/model`"),
        (TRAIN + "hyperparameters: {a: [1]}", 5, 24, "hyperparameters.a` must be a number, a text"),
        # limits and choices
        ("deploy: {replicas: 0}", 3, 20, "must be at least 1"),
        ("deploy: {replicas: 65}", 3, 20, "must be at most 64"),
        (TRAIN + "resources: {cpus: 0}", 5, 21, "must be greater than 0"),
        ("deploy: {keep: -1}", 3, 16, "must be at least 0"),
        ("deploy: {access: key}", 3, 18, "Did you mean `keys`? Allowed: open, keys."),
        ("deploy: {rollout: {strategy: blue}}", 3, 30, "Allowed: rolling, canary."),
        ("deploy: {rollout: {steps: []}}", 3, 27, "must have at least 1 entry"),
        ("deploy: {rollout: {steps: [50, 10]}}", 3, 27, "must rise | Each step gives the new"),
        ("deploy: {rollout: {steps: [10, 100]}}", 3, 32, "must be at most 99"),
        ("deploy: {rollout: {bake: 60}}", 3, 26, "must be a duration with its units"),
        ("deploy: {rollout: {gates: {error_rate: 2}}}", 3, 40, "must be at most 1"),
        ("deploy: {rollout: {gates: {latency: 0.5}}}", 3, 37, "must be at least 1"),
        ("deploy: {optimize: fast}", 3, 20, "is `fast` | Allowed: none, auto, or {data: "),
        ("deploy: {optimize: {budget: 0}}", 3, 29, "must be greater than 0"),
        ("deploy: {optimize: {data: held}}", 3, 9, "held`, which is no source of this spec"),
        ("evaluate: {metric: a, mode: maxi}", 3, 29, "Did you mean `max`? Allowed: max, min."),
        ("evaluate: {metric: a, no_worse_than_champion: -1}", 3, 47, "must be at least 0"),
        ("schedule: {after: []}", 3, 19, "must have at least 1 entry"),
        (f"description: {'x' * 1001}", 3, 14, "must have at most 1000 characters"),
        # names
        ("sources: {Data: path:a}", 3, 11, "the name `Data` must be 1 to 63 lower-case letters"),
        ("sources: {'[key]': path:a}", 3, 11, "the name `[key]` must be"),
        (TRAIN + "hyperparameters: {a b: 1}", 5, 21, "the name `a b` must be 1 to 64 letters"),
    ],
)
def test_a_mistake(refusal, lines: str, line: int, column: int, said: str) -> None:
    found = refusal(lines)
    assert found[:2] == (line, column)
    assert said in found[2]


def test_a_missing_key_of_the_file_is_shown_at_its_first_key(refused) -> None:
    found = refused("# a comment\n\ntarget: local\n")
    assert [(p.line, p.column, p.message) for p in found] == [
        (3, 1, "`name` is missing"),
        (3, 1, "`template` is missing"),
    ]


def test_what_yaml_refused_is_not_told_twice(refused) -> None:
    (found,) = refused("name: no\ntemplate: t@1\n")
    assert (found.line, found.column) == (1, 7)
    (found,) = refused("name: a\ntemplate: t@1\ntrain:\n")
    assert found.message == "`train` has no value"
