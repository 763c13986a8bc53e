"""The example of scikit-learn: a table, a skops file, an endpoint with the table's columns."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tracklayer.settings import resource

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform

EXAMPLE = resource("examples/wine")
REQUEST = EXAMPLE / "request.json"
CULTIVARS = ["cultivar 0", "cultivar 1", "cultivar 2"]


@pytest.fixture(scope="module")
def trained(platform: Platform) -> Any:
    """A run; what ``run --follow --json`` says of it."""
    platform.tracklayer("push", str(EXAMPLE))
    return platform.json("run", "wine", "--follow")


@pytest.mark.timeout(600)  # scikit-learn is installed
def test_rows_of_the_table_are_answered(platform: Platform, trained: Any) -> None:
    assert trained["state"] == "success"
    answer = platform.json("predict", "wine", str(REQUEST))
    rows = answer["predictions"]
    assert rows["label"] == CULTIVARS
    assert [len(row) for row in rows["probabilities"]] == [3, 3, 3]
    version = platform.mlflow.aliased("wine")
    [point] = platform.mlflow.metric_history(version.run_id, "accuracy")
    assert point.value >= 0.9


def test_the_columns_are_the_inputs(platform: Platform, trained: Any) -> None:
    endpoint = f"{platform.url('gateway')}/wine"
    rows = json.loads(REQUEST.read_text())["instances"]
    described = httpx.get(f"{endpoint}/v2/models/wine").json()
    assert described["platform"] == "sklearn_skops"
    assert [tensor["name"] for tensor in described["inputs"]] == list(rows[0])
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(reversed(rows[0])))
    writer.writeheader()
    writer.writerows(rows)
    answer = httpx.post(
        f"{endpoint}/invocations",
        content=table.getvalue(),
        headers={"content-type": "text/csv"},
    )
    assert answer.json()["predictions"]["label"] == CULTIVARS
    del rows[0]["hue"]
    refused = httpx.post(f"{endpoint}/invocations", json={"instances": rows})
    assert refused.status_code == 400
    assert "hue" in refused.text
