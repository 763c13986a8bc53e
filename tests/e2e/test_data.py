"""Data from a hub to an endpoint: encrypted, found again, used offline, gone when it is over."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

if TYPE_CHECKING:
    from tests.conftest import Hub
    from tests.e2e.conftest import Platform, Watch

MARKER = b"plain-text-that-nobody-may-find-"
SPEC = """\
name: sealed
template: lean@1
sources:
  data: hf://datasets/lab/private@main
packages: {requirements: [packaging]}
train: {script: train.py, metrics: {accuracy: 'accuracy (\\S+)'}}
evaluate: {metric: accuracy}
"""
SCRIPT = """\
import os, pathlib, shutil

data = pathlib.Path(os.environ["SM_CHANNEL_DATA"])
model = (data / "model.onnx").read_bytes()
assert b"plain-text-that-nobody-may-find-in-the-model" in model
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.onnx").write_bytes(model)
print("rows", len((data / "rows.csv").read_text().splitlines()), "accuracy 1.0", flush=True)
"""


@pytest.fixture(scope="module")
def trained(platform: Platform, hub_server: Hub, times: Callable[[float], bytes]) -> str:
    """A project whose data and model hold a text that is looked for; its first run."""
    import onnx

    model = onnx.load_from_string(times(2))
    model.doc_string = (MARKER + b"in-the-model").decode()
    rows = b"text,label\n" + b"".join(MARKER + b"%d,1\n" % row for row in range(1000))
    hub_server.push(
        "datasets/lab/private", {"rows.csv": rows, "model.onnx": model.SerializeToString()}
    )
    platform.push("sealed", {"tracklayer.yaml": SPEC, "train.py": SCRIPT})
    return str(platform.json("run", "sealed", "--follow")["run"])


def private(platform: Platform) -> list[Path]:
    """Everything that is decrypted now."""
    return [path for root in platform.private for path in root.rglob("*") if path.is_file()]


def holding(platform: Platform, text: bytes) -> tuple[list[Path], int]:
    """The files that the platform has written and that hold a text; and how many were read.

    Installed packages are left out.
    """
    found, read = [], 0
    for path in (path for folder in platform.home.iterdir() for path in (folder, *tree(folder))):
        with suppress(FileNotFoundError):  # a journal of a database comes and goes
            if path.is_file() and not path.is_symlink():
                read += 1
                found += [path] if text in path.read_bytes() else []
    return found, read


def tree(folder: Path) -> list[Path]:
    return [] if folder.name == "environments" else list(folder.rglob("*"))


def test_nothing_of_it_lies_anywhere_in_clear(platform: Platform, trained: str) -> None:
    assert platform.ask("sealed", 4) == ("1", 8)
    platform.until(lambda: not private(platform), "what was decrypted is gone")
    found, read = holding(platform, MARKER)
    assert found == []
    assert read > 100


def test_the_way_back_from_the_endpoint(platform: Platform, hub_server: Hub, trained: str) -> None:
    found = platform.json("lineage", "sealed")
    text = json.dumps(found)
    record = platform.record("sealed", trained)["steps"]["fetch-data"]
    assert record["revision"] in text
    assert {file["path"]: file["format"] for file in record["files"]} == {
        "model.onnx": "ONNX",
        "rows.csv": "CSV",
    }
    for file in record["files"]:
        assert file["digest"] in text
    shown = platform.tracklayer("lineage", "sealed").stdout
    assert "hf://datasets/lab/private@main" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_run_without_a_network_takes_all_from_the_store(
    platform: Platform, hub_server: Hub, trained: str
) -> None:
    hub_server.push("datasets/lab/private", {"rows.csv": b"text,label\nnewer,1\n"})
    before = len(hub_server.log())
    outcome = platform.json("run", "sealed", "--offline", "--follow")
    steps = platform.record("sealed", outcome["run"])["steps"]
    first = platform.record("sealed", trained)["steps"]
    assert steps["fetch-data"]["cached"]
    assert steps["fetch-data"]["revision"] == first["fetch-data"]["revision"]
    assert steps["packages"]["cached"]
    assert len(hub_server.log()) == before
    assert platform.ask("sealed", 4)[1] == 8


def test_what_is_needed_survives_a_collection_and_a_new_key(
    platform: Platform, trained: str
) -> None:
    version, _ = platform.ask("sealed", 1)
    platform.json("store", "rotate-key")
    collected = platform.json("store", "gc", "--quota", "1B")
    assert collected
    platform.tracklayer("store", "verify")
    for server in model_servers(platform, "sealed"):
        server.send_signal(signal.SIGKILL)

    def answers_again() -> bool:
        try:
            return platform.ask("sealed", 5) == (version, 10)
        except (AssertionError, httpx.TransportError):
            return False

    platform.until(answers_again, "its model server is back, from the store")


def model_servers(platform: Platform, project: str) -> list[psutil.Process]:
    return [
        process
        for process in platform.processes()
        if "tracklayer.serving" in process.cmdline() and project in process.cmdline()
    ]


def test_a_run_that_goes_on_keeps_what_it_has(platform: Platform, trained: str) -> None:
    """Whatever the quota is: its source stays in the store until the run is over."""
    go_on = platform.home.parent / "go-on"
    wait = f"import time\nwhile not os.path.exists({str(go_on)!r}):\n    time.sleep(0.1)\n"
    script = SCRIPT.replace("print(", f"{wait}print(")
    commit = platform.record("sealed", trained)["steps"]["fetch-data"]["revision"]
    spec = SPEC.replace("name: sealed", "name: lasting").replace("@main", f"@{commit}")
    platform.push("lasting", {"tracklayer.yaml": spec, "train.py": script})
    run = platform.trigger("lasting")
    platform.wait_running("lasting", run, "train")
    source = platform.record("lasting", run)["steps"]["fetch-data"]["manifest"]
    assert platform.json("store", "gc", "--quota", "1B")["over"]
    assert len(platform.json("store", "show", source)["files"]) == 2
    go_on.touch()
    platform.wait("lasting", run)
    assert platform.ask("lasting", 4)[1] == 8

    def collected() -> bool:
        platform.json("store", "gc", "--quota", "1B")
        return platform.json("store", "ls")["runs"] == []

    platform.until(collected, "what was kept for runs is let go")
    platform.tracklayer("store", "show", source, fails=5)


def test_what_was_killed_is_swept_at_the_next_start(platform: Platform, trained: str) -> None:
    root = platform.private[0]
    left = [root / "runs/sealed/of-a-killed-run/input-data", root / "temporary/of-a-killed-server"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "rows.csv").write_bytes(MARKER)
    scheduler = next(
        row for row in platform.json("status")["processes"] if row["name"] == "scheduler"
    )
    os.kill(scheduler["pid"], signal.SIGKILL)
    platform.until(lambda: not any(map(Path.exists, left)), "what was left is gone")


def test_a_source_that_would_run_code_needs_a_word_for_it(
    platform: Platform, hub_server: Hub
) -> None:
    commit = hub_server.push("models/lab/pickled", {"config.json": b"{}", "weights.bin": pickled()})
    handle = f"hf://lab/pickled@{commit}"
    spec = SPEC.replace("name: sealed", "name: pickled").replace(
        "data: hf://datasets/lab/private@main", f"base: {handle}"
    )
    script = SCRIPT.replace("DATA", "BASE")
    platform.push("pickled", {"tracklayer.yaml": spec, "train.py": script})
    run = platform.json("run", "pickled", "--follow", fails=8)["run"]
    said = platform.log_text("pickled", run, "fetch-base")
    assert "weights.bin" in said
    assert "pickle" in said
    assert "allow" in said
    assert "Traceback" not in said

    allowed = spec.replace(handle, f'{{uri: "{handle}", allow: [pickle]}}')
    platform.push("pickled", {"tracklayer.yaml": allowed})
    run = platform.trigger("pickled")
    platform.wait("pickled", run, "failed")  # its script finds no model there
    record = platform.record("pickled", run)["steps"]["fetch-base"]
    assert record["allowed"] == ["pickle"]
    assert {file["path"]: file["format"] for file in record["files"]}["weights.bin"] == "pickle"


def test_a_gated_source_is_opened_by_an_airflow_connection(
    platform: Platform, hub_server: Hub, shown_by_processes: Watch
) -> None:
    token = "hf_of_a_test"  # the one that the hub lets in
    spec = SPEC.replace("name: sealed", "name: gated").replace(
        "data: hf://datasets/lab/private@main", "base: hf://lab/gated@main"
    )
    # Alive for long enough to be seen among the processes.
    script = "import time\n\ntime.sleep(1)\n" + SCRIPT.replace("DATA", "BASE")
    platform.push("gated", {"tracklayer.yaml": spec, "train.py": script})
    run = platform.trigger("gated")
    platform.wait("gated", run, "failed")
    said = platform.log_text("gated", run, "fetch-base")
    assert "tracklayer_huggingface" in said
    assert "Traceback" not in said

    connection = {
        "connection_id": "tracklayer_huggingface",
        "conn_type": "generic",
        "password": token,
    }
    answer = platform.api("POST", "/api/v2/connections", json=connection)
    assert answer.is_success, answer.text
    with shown_by_processes("cmdline", "environ") as seen:
        run = platform.trigger("gated")
        platform.wait("gated", run, "failed")  # its script finds no model there
    assert any("SM_CHANNEL_BASE" in text for text in seen)
    assert not any(token in text for text in seen)
    assert platform.record("gated", run)["steps"]["fetch-base"]["revision"]
    shown = [
        platform.log_text("gated", run, "fetch-base"),
        json.dumps(platform.record("gated", run)),
    ]
    assert [text for text in shown if token in text] == []
    assert holding(platform, token.encode())[0] == []


def pickled() -> bytes:
    import pickle

    return pickle.dumps({"weights": [1.0, 2.0]})
