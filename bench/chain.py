"""The figure ``chain``: what the orchestration of ten steps that do nothing costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import OURS, Measure, NotMeasuredError, Options, Row, interleaved
from bench.ours import platform
from bench.peers import python_of
from bench.processes import clean_environment, timed
from bench.stock import NAME as STOCK
from bench.stock import standalone

_CHAINS = Path(__file__).parent / "chains"
_SPEC = "name: chain\ntemplate: chain@1\n"
_AT_MOST = {STOCK: 0.25, "Metaflow": 1.3, "Dagster": None}


def run(options: Options) -> list[Row]:
    """Everything is up and has run the chain once before it counts."""
    with TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        measures = {OURS: _ours(folder, stack)}
        missing: dict[str, str] = {}
        for peer, prepare in _PEERS.items():
            try:
                measures[peer] = prepare(folder, stack)
            except NotMeasuredError as error:
                missing[peer] = str(error)
        samples, failed = interleaved(options.pairs or 7, measures, warm=1)
    missing |= failed
    return [
        Row(
            what="wall time",
            unit="s",
            ours=samples[OURS],
            name=peer,
            theirs=samples.get(peer, []),
            at_most=at_most,
            missing=missing.get(peer, ""),
        )
        for peer, at_most in _AT_MOST.items()
    ]


def _ours(folder: Path, stack: ExitStack) -> Measure:
    (folder / "ours").mkdir()
    ours = stack.enter_context(platform(folder / "ours", _CHAINS))
    project = folder / "chain"
    project.mkdir()
    (project / "tracklayer.yaml").write_text(_SPEC)
    ours.save(project)
    ours.airflow.wait_for("chain")
    return lambda: ours.airflow.run("chain")


def _stock(folder: Path, stack: ExitStack) -> Measure:
    (folder / "stock").mkdir()
    stock = stack.enter_context(standalone(folder / "stock", _CHAINS / "airflow_chain.py"))
    stock.airflow.wait_for("chain")
    stock.airflow.unpause("chain")
    return lambda: stock.airflow.run("chain")


def _metaflow(folder: Path, stack: ExitStack) -> Measure:  # noqa: ARG001  nothing stays up
    home = folder / "metaflow"
    home.mkdir()
    env = clean_environment(
        METAFLOW_HOME=str(home), METAFLOW_DATASTORE_SYSROOT_LOCAL=str(home), METAFLOW_USER="bench"
    )
    argv = [str(python_of("metaflow")), str(_CHAINS / "metaflow_chain.py"), "run"]
    return lambda: timed(argv, env=env, cwd=home, log=home / "chain.log")


def _dagster(folder: Path, stack: ExitStack) -> Measure:  # noqa: ARG001  nothing stays up
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    env = clean_environment(DAGSTER_HOME=str(home))
    dagster = python_of("dagster").parent / "dagster"
    argv = [str(dagster), "job", "execute", "-f", str(_CHAINS / "dagster_chain.py"), "-j", "chain"]
    return lambda: timed(argv, env=env, cwd=home, log=home / "chain.log")


_PEERS: dict[str, Callable[[Path, ExitStack], Measure]] = {
    STOCK: _stock,
    "Metaflow": _metaflow,
    "Dagster": _dagster,
}
