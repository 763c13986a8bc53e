"""The figure ``projects``: from an empty database until all projects are visible."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import OURS, Measure, NotMeasuredError, Options, Row, interleaved, say
from bench.ours import settings_for
from bench.peers import python_of
from bench.processes import clean_environment, last_lines, started
from bench.specs import DAG_FACTORY_LOADER, dag_factory, hand_written, spec_text
from tracklayer.platform import airflow
from tracklayer.projects import Repository
from tracklayer.settings import Settings

_HAND, _FACTORY = "hand-written", "dag-factory"
_LOOK = 0.1  # seconds between two looks at the database
_WITHIN = 900.0
_AT_MOST = {1000: 60.0}  # seconds, by the number of projects


@dataclass(frozen=True, slots=True)
class _Side:
    """Who parses what: an interpreter with Airflow, and the bundle of its DAG processor."""

    python: Path
    env: dict[str, str]
    bundle: list[dict[str, object]] | None = None


def run(options: Options) -> list[Row]:
    """The DAG processor alone, started anew each time on a new home and an empty database.

    All have the configuration of our platform and differ in the bundle alone.
    """
    count, missing = options.projects, {}
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        settings = settings_for(folder)
        say(f"  writing {count} projects")
        airflow.prepare(settings)
        _commit(settings, count)
        env = clean_environment() | airflow.environment(settings)
        env |= {
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
            # dag-factory is one file with everything in it.
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "600",
        }
        sides = {
            OURS: _Side(Path(sys.executable), env),
            _HAND: _Side(Path(sys.executable), env, _local(_write_by_hand(folder, count))),
        }
        try:
            peer = _local(_write_dag_factory(folder, count))
            sides[_FACTORY] = _Side(python_of(_FACTORY), env, peer)
        except NotMeasuredError as error:
            missing[_FACTORY] = str(error)
        measures: dict[str, Measure] = {
            name: partial(_visible, settings, side, count) for name, side in sides.items()
        }
        samples, failed = interleaved(options.pairs or 3, measures)
    missing |= failed
    limits = {_HAND: 1.2, _FACTORY: None}
    ours = samples[OURS]
    return [
        *(
            Row(
                what=f"{count} projects",
                unit="s",
                ours=ours,
                name=name,
                theirs=samples.get(name, []),
                at_most=limit,
                missing=missing.get(name, ""),
            )
            for name, limit in limits.items()
        ),
        Row(what=f"{count} projects", unit="s", ours=ours, at_most=_AT_MOST.get(count)),
    ]


def _visible(settings: Settings, side: _Side, count: int) -> float:
    """Seconds from the start of the DAG processor until the database has all DAGs."""
    home = settings.airflow_home
    empty, database = home / "empty.db", home / "airflow.db"
    if not empty.exists():
        database.rename(empty)
    shutil.copy(empty, database)
    for suffix in ("-wal", "-shm"):
        (home / f"airflow.db{suffix}").unlink(missing_ok=True)
    for folder in ("bundles", "logs"):
        shutil.rmtree(home / folder, ignore_errors=True)
    env = dict(side.env)
    if side.bundle:
        env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(side.bundle)
    argv = [str(side.python), "-m", "airflow", "dag-processor"]
    log = settings.home / "dag-processor.log"
    log.unlink(missing_ok=True)
    begin = time.perf_counter()
    with (
        started(argv, env=env, cwd=settings.home, log=log) as process,
        closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection,
    ):
        while (found := _active(connection)) < count:
            time.sleep(_LOOK)
            seconds = time.perf_counter() - begin
            error = _import_error(connection)
            if error or process.poll() is not None or seconds > _WITHIN:
                why = f"{found} of {count} DAGs after {seconds:.0f} s"
                raise NotMeasuredError(f"{why}: {error or last_lines(log)}")
        return time.perf_counter() - begin


def _active(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM dag WHERE NOT is_stale").fetchone()[0])


def _import_error(connection: sqlite3.Connection) -> str:
    found = connection.execute("SELECT stacktrace FROM import_error LIMIT 1").fetchone()
    return str(found[0]).strip()[-300:] if found else ""


def _names(count: int) -> list[str]:
    return [f"project-{number:04}" for number in range(count)]


def _commit(settings: Settings, count: int) -> None:
    """All projects in one commit: one by one is not what is measured."""
    Repository(settings.repository_url, cache=settings.home / "mirror").create()
    argv = ["git", "-C", settings.repository_url, "fast-import", "--quiet"]
    stream = b"".join(_fast_import(settings.branch, count))
    subprocess.run(argv, input=stream, check=True)


def _fast_import(branch: str, count: int) -> Iterator[bytes]:
    """What git-fast-import(1) reads."""
    yield f"commit refs/heads/{branch}\ncommitter Benchmark <bench@localhost> 0 +0000\n".encode()
    yield b"data 4\nmany\n"
    for name in _names(count):
        for path, text in (("tracklayer.yaml", spec_text(name)), ("train.py", "print()\n")):
            data = text.encode()
            yield f"M 100644 inline {name}/{path}\ndata {len(data)}\n".encode() + data + b"\n"


def _write_by_hand(folder: Path, count: int) -> Path:
    dags = folder / "hand-written"
    dags.mkdir()
    for name in _names(count):
        (dags / f"{name}.py").write_text(hand_written(name))
    return dags


def _write_dag_factory(folder: Path, count: int) -> Path:
    dags = folder / "dag-factory"
    dags.mkdir()
    for name in _names(count):
        (dags / f"{name}.yaml").write_text(dag_factory(name))
    (dags / "load.py").write_text(DAG_FACTORY_LOADER)
    return dags


def _local(dags: Path) -> list[dict[str, object]]:
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    kwargs = {"path": str(dags), "refresh_interval": 1}
    return [{"name": "local", "classpath": classpath, "kwargs": kwargs}]
