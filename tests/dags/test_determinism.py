"""Airflow makes a new version of a DAG whenever its serialised form is another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tracklayer_airflow.stubs import dag_stub

SPECS = Path(__file__).parent / "specs"

# Parses the stubs as the DAG processor does, and prints their serialised DAGs.
PARSE = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import DagSerialization
bag = BundleDagBag(sys.argv[1], bundle_path=sys.argv[1], bundle_name="projects")
assert not bag.import_errors, bag.import_errors
for name in sorted(bag.dags):
    document = DagSerialization.to_dict(bag.dags[name])
    # As Airflow compares them: the order of keys is its own, that of lists is ours.
    print(SerializedDagModel.hash(document), json.dumps(document, sort_keys=True))
"""


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    folder = tmp_path / "stubs"
    folder.mkdir()
    for path in SPECS.iterdir():
        (folder / f"{path.stem}.py").write_text(
            dag_stub(path.stem, path.read_text("utf-8"), "0" * 40), "utf-8"
        )
    return folder


def test_the_same_spec_is_the_same_dag_byte_for_byte(stubs: Path, tmp_path: Path) -> None:
    def parse(seed: str, timezone: str, folder: str) -> str:
        at = tmp_path / folder
        at.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": timezone}
        argv = [sys.executable, "-W", "ignore", "-c", PARSE, str(stubs)]
        done = subprocess.run(
            argv, cwd=at, env=environment, check=True, capture_output=True, text=True
        )
        return "\n".join(line for line in done.stdout.splitlines() if '{"__version' in line)

    first = parse("0", "UTC", "a")
    assert first.count("\n") + 1 == len(list(SPECS.iterdir()))
    assert parse("1", "Asia/Tokyo", "b") == first
    assert parse("424242", "America/New_York", "c") == first


def test_building_again_gives_the_same(text: str, structure_of: Callable[..., object]) -> None:
    first, second = structure_of(text), structure_of(text)
    assert vars(first)["document"] == vars(second)["document"]
