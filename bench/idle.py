"""The figure ``idle``: what the platform takes of a machine while nobody uses it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import digits
from bench.measure import OURS, NotMeasuredError, Options, Row, say
from bench.ours import Platform, platform
from bench.processes import Usage, usage
from bench.stock import NAME as STOCK
from bench.stock import standalone

_SETTLE = 30.0  # seconds from the last start until both have come to rest


def run(options: Options) -> list[Row]:
    """Both are up; in turns one is watched for a window.

    Ours has MLflow, the gateway and, if the example can be deployed, its endpoint.
    """
    taken: dict[str, list[Usage]] = {OURS: [], STOCK: []}
    with TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        for side in ("ours", "stock"):
            (folder / side).mkdir()
        ours = stack.enter_context(platform(folder / "ours"))
        what, missing = _deploy(ours), ""
        pids = {OURS: ours.pid}
        try:
            pids[STOCK] = stack.enter_context(standalone(folder / "stock")).pid
        except NotMeasuredError as error:
            missing = str(error)
        time.sleep(_SETTLE)
        pairs = options.pairs or 3
        for number in range(pairs):
            for side, pid in pids.items():
                found = usage(pid, options.seconds)
                taken[side].append(found)
                say(f"  {number + 1}/{pairs}  {side}: {found}")
    memory = {side: [found.memory for found in taken[side]] for side in taken}
    processes = {side: [float(found.processes) for found in taken[side]] for side in taken}
    cpu = {side: [found.cpu for found in taken[side]] for side in taken}
    return [
        Row(
            what=f"{kind}{what}",
            unit=unit,
            ours=values[OURS],
            name=STOCK,
            theirs=values[STOCK],
            at_most=limit,
            missing=missing,
        )
        for kind, unit, values, limit in (
            ("resident memory", "MiB", memory, 0.5),
            ("processes", "", processes, None),
            ("processor", "% of a core", cpu, None),
        )
    ] + [Row(what=f"processor{what}", unit="% of a core", ours=cpu[OURS], at_most=5)]


def _deploy(ours: Platform) -> str:
    """Have an endpoint up too; what to say if there is none."""
    say(f"  deploying {digits.NAME}")
    try:
        ours.save(digits.folder())
        ours.airflow.wait_for(digits.NAME)
        ours.airflow.run(digits.NAME)
        digits.predict(ours)
    except NotMeasuredError as error:
        say(f"  without an endpoint: {error}")
        return f", without an endpoint ({error})"
    return ""
