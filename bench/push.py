"""The figure ``push``: from a saved project to its DAG."""

from __future__ import annotations

import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measure import OURS, Options, Row, interleaved
from bench.ours import Platform, platform
from bench.specs import spec_text


def run(options: Options) -> list[Row]:
    """Each time another project, at another moment of the platform's own rhythm."""
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with platform(folder) as ours:
            numbers = iter(range(10**6))
            samples, _ = interleaved(
                options.pairs or 15, {OURS: lambda: _push(ours, folder, next(numbers))}, warm=1
            )
    return [Row(what="push to DAG", unit="s", ours=samples[OURS], at_most=3)]


def _push(ours: Platform, folder: Path, number: int) -> float:
    name = f"pushed-{number}"
    project = folder / name
    project.mkdir()
    (project / "tracklayer.yaml").write_text(spec_text(name))
    (project / "train.py").write_text("print('nothing')\n")
    time.sleep(random.uniform(0, 1))
    begin = time.perf_counter()
    ours.save(project)
    ours.airflow.wait_for(name)
    return time.perf_counter() - begin
