from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracklayer.errors import JobError
from tracklayer.runtimes.contract import Tree, arguments, variables
from tracklayer.runtimes.job import Job


def job(tmp_path: Path, **more: Any) -> Job:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "a.csv").write_text("1,2\n")
    single = tmp_path / "one.txt"
    single.write_text("one")
    values: dict[str, Any] = {
        "name": "digits-train",
        "folder": tmp_path / "job",
        "argv": ["train.py"],
        "inputs": {"data": data, "my-base": single},
        "hyperparameters": {"epochs": 5, "learning-rate": 0.001, "b": True, "loss": "mse"},
        "gpus": 0,
    }
    return Job(**(values | more))


def test_the_tree_is_sagemakers(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "job")
    tree.make(job(tmp_path))
    assert (tree.data / "data" / "a.csv").read_text() == "1,2\n"
    assert (tree.data / "my-base" / "one.txt").read_text() == "one"
    config = {p.name: json.loads(p.read_text()) for p in tree.config.iterdir()}
    assert config["hyperparameters.json"] == {
        "epochs": "5",
        "learning-rate": "0.001",
        "b": "True",
        "loss": "mse",
    }
    assert config["inputdataconfig.json"]["data"]["TrainingInputMode"] == "File"
    assert config["resourceconfig.json"]["hosts"] == ["algo-1"]
    for folder in ("model", "output/data", "checkpoints"):
        assert (tree.root / folder).is_dir()


def test_the_variables_are_those_of_the_toolkit(tmp_path: Path) -> None:
    made = job(tmp_path)
    found = variables(made, argv=made.argv, cpus=2)
    root = tmp_path / "job"
    assert found["SM_MODEL_DIR"] == f"{root}/model"
    assert found["SM_CHANNEL_DATA"] == f"{root}/input/data/data"
    assert found["SM_CHANNEL_MY_BASE"] == found["SM_CHANNEL_MY-BASE"]
    assert json.loads(found["SM_CHANNELS"]) == ["data", "my-base"]
    assert json.loads(found["SM_HPS"]) == dict(made.hyperparameters)
    assert found["SM_HP_LEARNING_RATE"] == found["SM_HP_LEARNING-RATE"] == "0.001"
    assert (found["SM_NUM_CPUS"], found["SM_NUM_GPUS"]) == ("2", "0")
    assert json.loads(found["SM_HOSTS"]) == [found["SM_CURRENT_HOST"]]
    assert json.loads(found["SM_USER_ARGS"]) == arguments(made.hyperparameters)
    assert (found["SM_MODULE_NAME"], found["SM_USER_ENTRY_POINT"]) == ("train", "train.py")
    environment = json.loads(found["SM_TRAINING_ENV"])
    assert environment["hyperparameters"] == dict(made.hyperparameters)
    assert environment["channel_input_dirs"]["data"] == f"{root}/input/data/data"
    others = {"OUTPUT_DATA_DIR", "OUTPUT_DIR", "INPUT_DIR", "INPUT_CONFIG_DIR", "MODULE_DIR"}
    others |= {"INPUT_DATA_CONFIG", "RESOURCE_CONFIG", "NETWORK_INTERFACE_NAME", "LOG_LEVEL"}
    for name in others:
        assert found[f"SM_{name}"]
    assert all(isinstance(value, str) for value in found.values())


def test_arguments_are_sorted_and_a_letter_gets_one_dash() -> None:
    assert arguments({"z": 1, "epochs": 5, "flag": False}) == [
        *("--epochs", "5", "--flag", "False", "-z", "1")
    ]


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "a b"])
def test_an_input_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match="cannot be the name of an input"):
        Tree(tmp_path / "job").make(job(tmp_path, inputs={name: tmp_path}))


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"its input 'data' is not there: .*gone"):
        Tree(tmp_path / "job").make(job(tmp_path, inputs={"data": tmp_path / "gone"}))
