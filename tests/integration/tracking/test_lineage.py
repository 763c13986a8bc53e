from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracklayer.errors import ModelError
from tracklayer.tracking import Tracking
from tracklayer.tracking.lineage import lineage


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "sub/labels.json").write_text("[]")
    return folder


def test_what_mlflow_knows(server: str, model: Path) -> None:
    """With nothing of the run on any disk: versions, aliases and the record are all in MLflow."""
    tracking = Tracking(server)
    with pytest.raises(ModelError, match="No version of traced is served yet"):
        lineage(server, "traced")
    for number in (1, 2):
        (model / "number").write_text(str(number))
        run = tracking.start("traced", f"r{number}")
        tracking.log_model(run.id, model)
        tracking.register("traced", run.id, tags={"tracklayer.commit": f"c{number}"})
    tracking.promote("traced", 2)
    source = {"source": "data", "handle": "path:d", "revision": "x", "manifest": "m", "files": []}
    steps = {"fetch-data": source, "train": {"model": {"format": "onnx"}}}
    tracking.log_record(run.id, {"commit": "from the record", "steps": steps})

    found = lineage(server, "traced")
    assert (found["version"]["number"], found["version"]["champion"]) == (2, True)
    assert found["version"]["live"] is False
    assert found["model"]["format"] == "onnx"
    assert [(file["path"], file["size"]) for file in found["model"]["files"]] == [
        ("model.onnx", 5),
        ("number", 1),
        ("sub/labels.json", 2),
    ]
    assert found["project"]["commit"] == "from the record"
    assert found["sources"][0]["handle"] == "path:d"

    asked: list[str] = []

    def record(run: str) -> dict[str, Any] | None:
        asked.append(run)
        return None

    older = lineage(server, "traced", live=1, record=record)
    assert (older["version"]["number"], older["version"]["live"]) == (1, True)
    assert (older["project"]["commit"], older["sources"]) == ("c1", [])
    assert asked == ["r1"]  # it was not logged, so whoever has it is asked
    with pytest.raises(ModelError, match=r"no version 3 of traced\.\n  There are: 2, 1\."):
        lineage(server, "traced", version=3)
