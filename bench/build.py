"""The figure ``build``: one DAG from its spec, beside the code that makes the same DAG by hand."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench.measure import NotMeasuredError, Options, Row
from bench.specs import hand_written, spec_text

if TYPE_CHECKING:
    from airflow.sdk import DAG

_NAME = "digits"


def run(options: Options) -> list[Row]:
    """Built again and again in one process, in turns; the modules are imported before."""
    with TemporaryDirectory(prefix="bench-") as folder:
        os.environ["AIRFLOW_HOME"] = folder
        try:
            return _measure(options.pairs or 300)
        finally:
            del os.environ["AIRFLOW_HOME"]


def _measure(pairs: int) -> list[Row]:
    from tracklayer_airflow.dag import build_dag

    text = spec_text(_NAME)
    code = compile(hand_written(_NAME), "hand_written.py", "exec")

    def from_spec() -> DAG:
        return build_dag(text, f"{_NAME}/tracklayer.yaml")

    def by_hand() -> DAG:
        names: dict[str, Any] = {}
        exec(code, names)
        dag: DAG = names["dag"]
        return dag

    _compare(from_spec(), by_hand())
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(_milliseconds(from_spec))
        theirs.append(_milliseconds(by_hand))
    return [
        Row(what="time", unit="ms", ours=ours, name="hand-written", theirs=theirs, at_most=1.5),
        Row(what="time", unit="ms", ours=ours, at_most=10),
    ]


def _milliseconds(build: Callable[[], DAG]) -> float:
    gc.collect()  # whoever made the garbage should not have the other pay for it
    begin = time.perf_counter()
    build()
    return 1000 * (time.perf_counter() - begin)


def _compare(ours: DAG, theirs: DAG) -> None:
    """Both must be the same to Airflow, or the comparison says nothing.

    :raises NotMeasuredError: they are not.
    """
    from airflow.serialization.serialized_objects import DagSerialization

    def comparable(dag: DAG) -> dict[str, Any]:
        found = DagSerialization.to_dict(dag)
        for key in ("fileloc", "relative_fileloc"):
            found["dag"].pop(key, None)
        for task in found["dag"]["tasks"]:
            task["__var"].pop("params", None)  # copies of the DAG's, which a task gets anyway
        return found

    one, other = comparable(ours), comparable(theirs)
    if one != other:
        folder = Path(os.environ["AIRFLOW_HOME"])
        differ = sorted(k for k in one["dag"] if one["dag"][k] != other["dag"].get(k))
        (folder / "dags.json").write_text(json.dumps([one, other], indent=1, default=str))
        raise NotMeasuredError(f"the hand-written DAG is another than ours: {differ}")
