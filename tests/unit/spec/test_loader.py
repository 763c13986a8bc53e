"""From a file to a spec, or to everything that is wrong with it."""

import os
import pickle
from pathlib import Path

import pytest

from tracklayer.errors import SpecError
from tracklayer.spec import After, load, loads

GIB = 1024**3


def test_a_whole_spec(digits: str, tmp_path: Path) -> None:
    path = tmp_path / "tracklayer.yaml"
    path.write_text(digits)
    spec = load(path)
    assert (spec.name, spec.template, spec.target) == ("digits", "train-and-deploy@1", "local")
    assert {name: source.uri for name, source in spec.sources.items()} == {
        "data": "path:data/optdigits.csv.gz"
    }
    assert spec.packages.requirements == ["torch==2.13.0", "pandas"]
    assert spec.train.values() == {"epochs": 5, "learning-rate": 0.001, "optimizer": "adam"}
    resources = spec.train.resources
    assert (resources.cpus, resources.memory, resources.gpus) == (2, 4 * GIB, 0)
    assert resources.timeout == 3600
    assert spec.evaluate.higher_is_better
    assert spec.deploy.replicas == 2
    assert spec.schedule == "@weekly"
    assert spec.positions.file == str(path)
    assert spec.positions.place(("train", "script")) == (9, 11)


def test_what_may_be_left_out() -> None:
    spec = loads("name: a\ntemplate: t@1\n")
    assert (spec.description, spec.target, spec.sources) == ("", "local", {})
    assert spec.packages is spec.train is spec.evaluate is spec.schedule is None
    assert spec.deploy.replicas == 1
    assert (spec.deploy.keep, spec.deploy.access) == (1, "open")
    assert (spec.deploy.rollout.strategy, spec.deploy.rollout.bake) == ("rolling", None)
    assert spec.deploy.rollout.gates.model_dump() == {
        "error_rate": 0.01,
        "latency": 1.5,
        "golden": True,
    }
    train = loads("name: a\ntemplate: t@1\ntrain: {script: a.py}\n").train
    assert (train.resources.cpus, train.resources.gpus) == (1, 0)
    assert (train.resources.memory, train.resources.timeout) == (2 * GIB, 3600)
    assert train.values() == train.metrics == {}


def test_the_same_text_is_the_same_spec_wherever_it_lies(digits: str) -> None:
    one, other = loads(digits, "a.yaml"), loads("# moved\n\n" + digits, "b.yaml")
    assert one == other
    assert hash(one) == hash(other)
    assert one.model_dump_json() == other.model_dump_json()
    assert one != loads(digits.replace("epochs: 5", "epochs: 6"))
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert again.positions.place(("name",)) == (1, 7)


def test_all_problems_of_a_file_at_once_in_its_order(refused) -> None:
    found = refused(
        """\
nam: digits
template: train-and-deploy@1
target: [local]
script: train.py
sources:
  Data: path:x
  ok: x
  ok: path:y
packages: {python: 3.10, requirements: torch=1}
train:
  scrip: ../train.py
  hyperparameters:
    epochs: no
    lr2: {value: 3, minimum: 5}
    lr3: [1]
    a b: 1
    x: "{{ ds }}"
    opt: {value: adam, enum: [sgd]}
  resources: {cpus: "2", memory: 4, gpus: -1, timeout: 1 hour}
  metrics: {loss: "loss="}
evaluate: {metric: accuracy, minimum: 0.95, maximum: 1, mode: maximal}
deploy: {replicas: 0, optimize: fast, rollout: {strategy: blue}}
schedule: {after: [x]}
"""
    )
    assert [(p.line, p.column) for p in found] == [
        (1, 1),
        (1, 1),
        (3, 9),
        (4, 1),
        (6, 3),
        (7, 7),
        (8, 3),
        (9, 20),
        (9, 40),
        (10, 1),
        (11, 3),
        (13, 13),
        (14, 30),
        (15, 10),
        (16, 5),
        (17, 8),
        (18, 30),
        (19, 21),
        (19, 34),
        (19, 43),
        (19, 56),
        (20, 19),
        (21, 54),
        (21, 63),
        (22, 20),
        (22, 33),
        (22, 59),
        (23, 20),
    ]


def test_the_error_is_one_message_and_survives_pickling(digits: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(
            digits.replace("epochs", "ep ochs").replace("train.py", "/train.py"),
            "p/tracklayer.yaml",
        )
    assert str(caught.value).startswith("p/tracklayer.yaml:9:11: `train.script` must be the path")
    assert "p/tracklayer.yaml:11:5: the name `ep ochs`" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in [
        (tmp_path / "none.yaml", "there is no such file"),
        (tmp_path, "this is no file"),
        (tmp_path / "pipe", "this is no file"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ]:
        with pytest.raises(SpecError) as caught:
            load(path)
        (problem,) = caught.value.problems
        assert (problem.file, problem.line, problem.column) == (str(path), 1, 1)
        assert said in problem.message


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "tracklayer.yaml"
    with path.open("wb") as stream:
        stream.truncate(50 * GIB)  # sparse
    with pytest.raises(SpecError, match="larger than 256 KiB"):
        load(path)


def test_schedules() -> None:
    def schedule(text: str) -> object:
        return loads(f"name: a\ntemplate: t@1\nschedule: {text}\n").schedule

    assert schedule('"0 3 * * mon-fri"') == "0 3 * * mon-fri"
    assert schedule("'*/15 2,14 L * *'") == "*/15 2,14 L * *"
    assert schedule("{after: [b/model, c/data]}") == After(after=["b/model", "c/data"])


def test_a_source_with_what_it_needs() -> None:
    text = """\
name: a
template: t@1
sources:
  short: path:a.csv
  long: {uri: "hf://org/model@main", connection: hf-lab, allow: [pickle, remote-code]}
"""
    short, long = loads(text).sources.values()
    assert (short.uri, short.connection, short.allow) == ("path:a.csv", None, [])
    assert (long.uri, long.connection) == ("hf://org/model@main", "hf-lab")
    assert long.allow == ["pickle", "remote-code"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{uri: path:a, allow: [everything]}", "`sources.a.allow[0]` must be one of these"),
        ("{allow: [pickle]}", "`sources.a.uri` is missing"),
        ("{uri: path:a, conection: x}", "unknown key `sources.a.conection`"),
        ("{uri: path:a, connection: 'a b'}", "`sources.a.connection` must be the id of an Airflow"),
    ],
)
def test_a_source_that_is_wrong(source: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(f"name: a\ntemplate: t@1\nsources:\n  a: {source}\n")
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.line == 4
