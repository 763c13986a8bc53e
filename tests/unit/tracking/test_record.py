from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest

from tracklayer.errors import TrackingError
from tracklayer.tracking import RunRecord


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    record = RunRecord(tmp_path / "digits" / "run-1")
    record.begin(project="digits", run="run-1", commit="c0ffee")
    return record


def test_the_document_has_it_all(record: RunRecord) -> None:
    record.write("train", {"exit": 3})
    record.write("fetch.data", {"revision": "r"})
    record.write("train", {"exit": 0})
    document = record.document()
    assert {key: document[key] for key in ("project", "run", "commit")} == {
        "project": "digits",
        "run": "run-1",
        "commit": "c0ffee",
    }
    assert document["steps"] == {"fetch.data": {"revision": "r"}, "train": {"exit": 0}}
    tries = [(entry["step"], entry["try"], entry.get("data")) for entry in document["log"]]
    assert tries == [("train", 1, {"exit": 3}), ("fetch.data", 1, None), ("train", 2, None)]


def test_read_gives_the_last_try_even_the_tenth(record: RunRecord) -> None:
    for number in range(1, 12):
        assert record.write("train", {"number": number}) == number
    record.write("train.more", {"number": 99})
    assert record.read("train") == {"number": 11}
    with pytest.raises(TrackingError, match="nothing from step `deploy`"):
        record.read("deploy")


def test_nothing_is_ever_written_again(record: RunRecord, tmp_path: Path) -> None:
    record.write("train", {"exit": 3})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    record.write("train", {"exit": 0})
    record.begin(project="digits", run="run-1", commit="c0ffee")
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(TrackingError, match="record of another run"):
        record.begin(project="digits", run="run-1", commit="other")


def test_only_its_owner_reads_it(record: RunRecord, tmp_path: Path) -> None:
    record.write("train", {})
    paths = list((tmp_path / "digits/run-1/record").rglob("*"))
    assert len(paths) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in paths)


def test_two_writers_at_once_both_stay(record: RunRecord) -> None:
    threads = [
        threading.Thread(target=record.write, args=("train", {"writer": number}))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["try"] for entry in record.document()["log"]) == list(range(1, 9))


@pytest.mark.parametrize("step", ["", "run", "../x", "a/b", "A", ".x", "a.", "a\n", "x" * 0])
def test_a_step_has_a_name(record: RunRecord, step: str) -> None:
    with pytest.raises(ValueError, match="is no name of a step"):
        record.write(step, {})


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object()])
def test_only_json_is_written(record: RunRecord, value: object, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError)):
        record.write("train", {"value": value})
    assert record.document()["steps"] == {}


def test_an_interrupted_write_leaves_nothing_to_be_read(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "digits/run-1/record/.a1b2c3").write_text('{"ste')
    assert record.document()["steps"] == {}
    assert record.write("train", {"exit": 0}) == 1


@pytest.mark.parametrize("taken", ["run", "run/record"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("")
    with pytest.raises(TrackingError, match="cannot be written: "):
        RunRecord(tmp_path / "run").write("train", {})


def test_the_files_are_plain_json(record: RunRecord, tmp_path: Path) -> None:
    record.write("train", {"größe": 1})
    entry = json.loads((tmp_path / "digits/run-1/record/train.1.json").read_text())
    assert (entry["step"], entry["try"], entry["data"]) == ("train", 1, {"größe": 1})
    assert entry["at"].endswith("+00:00")
