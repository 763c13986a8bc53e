"""Estimators of scikit-learn, against what they say in the process that fitted them."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from tracklayer.errors import ModelError
from tracklayer.serving import golden, recognise
from tracklayer.serving.formats import load
from tracklayer.serving.model import Model, RequestError

Save = Callable[[Any], Path]

X, NUMBERS = load_wine(return_X_y=True)
NAMES = np.array(["barolo", "grignolino", "barbera"])[NUMBERS]
COLUMNS: dict[str, list[Any]] = {
    "age": [22.0, 38.0, 26.0, 35.0] * 5,
    "port": ["S", "C", "S", "Q"] * 5,
    "class": ["third", "first", "third", "first"] * 5,
    "note": ["early train", "late ship", "early ship", "late train"] * 5,
}


@pytest.fixture
def table() -> Any:
    from pandas import DataFrame

    return DataFrame(COLUMNS)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(estimator: Any) -> Path:
        (tmp_path / "model").mkdir(exist_ok=True)
        skops.io.dump(estimator, tmp_path / "model/model.skops")
        return tmp_path / "model"

    return saved


def run(model: Model, **feeds: Any) -> dict[str, Any]:
    outputs = model.signature.output_names
    return dict(zip(outputs, model.run(feeds, outputs, model.call()), strict=True))


def described(model: Model) -> list[tuple[str, str, list[int]]]:
    signature = model.signature
    return [(t.name, t.datatype, t.shape) for t in (*signature.inputs, *signature.outputs)]


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(8, n_jobs=-1, random_state=0),
        KNeighborsClassifier(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_classifier_gives_labels_and_probabilities(estimator: Any, save: Save) -> None:
    estimator.fit(X, NAMES)
    folder = save(estimator)
    assert recognise(folder).name == "skops"
    model = load(folder)
    assert described(model) == [
        ("input", "FP64", [-1, 13]),
        ("label", "BYTES", [-1]),
        ("probabilities", "FP64", [-1, 3]),
    ]
    found = run(model, input=X)
    assert found["label"].tolist() == estimator.predict(X).tolist()
    assert np.allclose(found["probabilities"], estimator.predict_proba(X), rtol=0, atol=1e-12)
    [labels] = model.run({"input": X[:3]}, ["label"], model.call())
    assert labels.tolist() == estimator.predict(X[:3]).tolist()
    none = run(model, input=X[:0])
    assert [array.shape for array in none.values()] == [(0,), (0, 3)]
    made = golden(folder)
    made.check(made.response)


@pytest.mark.parametrize(
    ("estimator", "target", "outputs"),
    [
        (SVC(), NUMBERS, [("label", "INT64", [-1])]),
        (LinearRegression(), X[:, 0], [("prediction", "FP64", [-1])]),
        (LinearRegression(), X[:, :2], [("prediction", "FP64", [-1, 2])]),
        (HistGradientBoostingRegressor(max_iter=3), NUMBERS, [("prediction", "FP64", [-1])]),
        (KMeans(2, n_init=1), None, [("label", "INT32", [-1])]),
        (LogisticRegression(), NUMBERS > 0, [("label", "BOOL", [-1]), ("", "", [-1, 2])]),
        (
            MultiOutputClassifier(LogisticRegression()),
            np.stack([NUMBERS, NUMBERS > 0], 1),
            [("label", "INT64", [-1, 2])],
        ),
    ],
    ids=lambda each: type(each).__name__ if hasattr(each, "fit") else "",
)
def test_outputs_are_what_the_estimator_gives(
    estimator: Any, target: Any, outputs: list[tuple[str, str, list[int]]], save: Save
) -> None:
    scaled = StandardScaler().fit_transform(X)
    estimator.fit(scaled, target)
    model = load(save(estimator))
    found = described(model)[1:]
    assert found[: len(outputs)] == [
        (name, kind, shape) if name else ("probabilities", "FP64", shape)
        for name, kind, shape in outputs
    ]
    name = found[0][0]
    assert np.allclose(run(model, input=scaled)[name], estimator.predict(scaled))


def test_a_model_of_a_table_takes_its_columns(save: Save, table: Any) -> None:
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    table["deck"] = [3, 4, 3, 4] * 5
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["age"]),
            ("texts", texts, [1, 2]),
            ("note", TfidfVectorizer(), "note"),
            ("deck", OneHotEncoder(), slice(4, 5)),
        ]
    )
    estimator = make_pipeline(columns, LogisticRegression())
    estimator.fit(table, ["no", "yes", "yes", "no"] * 5)
    folder = save(estimator)
    model = load(folder)
    assert described(model)[:5] == [
        ("age", "FP64", [-1]),
        ("port", "BYTES", [-1]),
        ("class", "BYTES", [-1]),
        ("note", "BYTES", [-1]),
        ("deck", "FP64", [-1]),
    ]
    found = run(model, **{name: table[name].to_numpy() for name in table})
    assert found["label"].tolist() == estimator.predict(table).tolist()
    assert np.allclose(found["probabilities"], estimator.predict_proba(table))
    values = {tensor["name"]: tensor["data"] for tensor in golden(folder).request["inputs"]}
    assert (values["port"], values["class"], values["deck"]) == (["C"], ["first"], [3])
    feeds = {name: table[name].to_numpy()[:1] for name in table}
    with pytest.raises(RequestError, match="unknown categories \\['X'\\]") as refused:
        run(model, **feeds | {"port": np.array(["X"], dtype=object)})
    assert refused.value.status == 400


def test_a_model_of_texts_takes_texts(save: Save, table: Any) -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression())
    estimator.fit(table["note"], table["port"])
    model = load(save(estimator))
    assert described(model)[0] == ("text", "BYTES", [-1])
    found = run(model, text=table["note"].to_numpy())
    assert found["label"].tolist() == estimator.predict(table["note"]).tolist()


def test_threads_may_ask_at_once(save: Save) -> None:
    estimator = RandomForestClassifier(20, n_jobs=4, random_state=0).fit(X, NAMES)
    model = load(save(estimator))
    expected = estimator.predict_proba(X)
    wrong: list[int] = []

    def ask(start: int) -> None:
        for _ in range(5):
            rows = slice(start, start + 20)
            found = run(model, input=X[rows])["probabilities"]
            if not np.allclose(found, expected[rows]):
                wrong.append(start)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 120, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def shout(values: Any) -> Any:
    """A function of a project."""
    return values


def test_what_is_not_of_scikit_learn_is_named(save: Save) -> None:
    estimator = make_pipeline(FunctionTransformer(shout), LinearRegression()).fit(X, NUMBERS)
    with pytest.raises(ModelError, match=r"names what is not loaded: .*shout\n  Only scikit"):
        load(save(estimator))


@pytest.mark.parametrize(
    "function",
    [
        "os.system",
        "numpy.load",
        "numpy.testing._private.utils.runstring",
        "sklearn.datasets._base.load_files",
        "sklearn.utils._testing.TempMemmap",
        "sklearn.base.warnings",
    ],
)
def test_a_forged_file_gets_no_other_function(function: str, save: Save) -> None:
    estimator = make_pipeline(FunctionTransformer(np.log1p), LinearRegression()).fit(X, NUMBERS)
    file = save(estimator) / "model.skops"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = members["schema.json"].decode()
    assert '"log1p"' in schema
    module, _, name = function.rpartition(".")
    node = {"__class__": name, "__module__": module, "__loader__": "FunctionNode"}
    document = json.loads(schema)
    assert _replace(document, node)
    members["schema.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    with pytest.raises(ModelError, match=f"not loaded: {function}".replace(".", r"\.")):
        load(file.parent)


def _replace(document: Any, node: dict[str, str]) -> bool:
    """Put a node in the place of the function that the file has."""
    values = document.values() if isinstance(document, dict) else document
    if isinstance(document, dict) and "log1p" in json.dumps(document.get("__class__", "")):
        document.update(node | {"content": {}})
        return True
    return any(_replace(value, node) for value in values if isinstance(value, dict | list))


def test_a_transformer_alone_predicts_nothing(save: Save) -> None:
    with pytest.raises(ModelError, match="is a StandardScaler, which has no predict"):
        load(save(StandardScaler().fit(X)))


def test_an_estimator_that_was_not_fitted_is_said(save: Save) -> None:
    with pytest.raises(ModelError, match="does not say how many features it takes"):
        load(save(LogisticRegression()))


def test_something_else_than_an_estimator_is_said(save: Save) -> None:
    with pytest.raises(ModelError, match="is a dict, which has no predict"):
        load(save({"a": 1}))


def test_a_damaged_file_is_said(save: Save) -> None:
    folder = save(LinearRegression().fit(X, NUMBERS))
    file = folder / "model.skops"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", '{"_skops_version": "0.16", "__loader__": "Other"}')
    with pytest.raises(ModelError, match=r"model\.skops cannot be loaded.*\n.* scikit-learn 1"):
        load(folder)
