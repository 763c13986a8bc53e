"""The classifier of the examples, fine-tuned from a model of the hub on data of Kaggle's form.

The data set that the example names cannot be reached from everywhere. In its place the hub has a
file of the same columns and encoding, with true texts and labels: ``descriptions/README.md``.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracklayer.settings import resource

if TYPE_CHECKING:
    from tests.conftest import Hub
    from tests.e2e.conftest import Platform

EXAMPLE = resource("examples/spam")
ROWS = Path(__file__).parent / "descriptions/descriptions.csv.gz"
TEXTS = ["mail user agent that reads IMAP folders", "alignment of DNA sequences"]


def spam_csv() -> bytes:
    """As Kaggle has it: Latin-1, the label in v1, the text in v2, and three columns of nothing."""
    with gzip.open(ROWS, "rt", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["v1", "v2", "", "", ""], *([*row, "", "", ""] for row in rows)])
    return table.getvalue().encode("latin-1")


@pytest.fixture(scope="module")
def trained(platform: Platform, hub_server: Hub) -> Any:
    """A run; what ``run --follow --json`` says of it."""
    hub_server.kaggle("datasets/uciml/sms-spam-collection-dataset/1", {"spam.csv": spam_csv()})
    platform.tracklayer("push", str(EXAMPLE))
    return platform.json("run", "spam", "--follow")


@pytest.mark.timeout(900)  # PyTorch is installed, and a model trained
def test_a_model_is_fine_tuned_and_answers_with_labels(
    platform: Platform, trained: Any, tmp_path: Path
) -> None:
    assert trained["state"] == "success"
    text = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}
    (tmp_path / "request.json").write_text(json.dumps({"inputs": [text]}))
    answer = platform.json("predict", "spam", str(tmp_path / "request.json"))
    found = {output["name"]: output for output in answer["outputs"]}
    assert found["label"]["data"] == ["mail", "science"]
    assert min(found["score"]["data"]) > 0.8
    assert found["probabilities"]["shape"] == [2, 2]
    said = platform.tracklayer("predict", "spam", str(tmp_path / "request.json")).stdout
    assert "label  BYTES [2]  mail science" in said
    # The example's own request, whatever the model that was made here may think of it.
    asked = platform.json("predict", "spam", str(EXAMPLE / "request.json"))
    assert asked["outputs"][0]["shape"] == [3]


def test_the_metrics_are_read_from_what_it_prints(platform: Platform, trained: Any) -> None:
    version = platform.mlflow.aliased("spam")
    history = platform.mlflow.metric_history(version.run_id, "accuracy")
    assert len(history) == 2
    assert history[-1].value >= 0.95
    losses = platform.mlflow.metric_history(version.run_id, "loss")
    assert losses[0].value > losses[1].value


def test_the_record_names_both_sources(platform: Platform, trained: Any) -> None:
    steps = platform.record("spam", trained["run"])["steps"]
    assert steps["fetch-base"]["revision"] == "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    assert steps["fetch-data"]["revision"] == "1"
    assert [file["path"] for file in steps["fetch-data"]["files"]] == ["spam.csv"]
