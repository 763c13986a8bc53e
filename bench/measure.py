"""What a measurement is: us and a reference in turns, and their ratio with its spread."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

OURS = "Tracklayer"
RESULTS = Path(__file__).parent / "results"

Measure = Callable[[], float]
"""Does the work once and gives what it took."""


class NotMeasuredError(Exception):
    """Something cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person can change about a run of the benchmarks.

    :param pairs: how often each side is measured; None: as often as the figure needs.
    :param projects: how many projects the figure ``projects`` has.
    :param seconds: length of one window of the figure ``idle``.
    :param quick: small sizes, where a figure has any: shows that all works, says nothing about
        how fast it is.
    """

    pairs: int | None = None
    projects: int = 1000
    seconds: float = 60.0
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} [{_short(self.least)}..{_short(self.most)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a figure.

    :param what: was measured.
    :param unit: of the samples.
    :param ours: one number a repetition.
    :param name: of the reference; empty if there is none.
    :param theirs: the reference's numbers; each was taken right after the one of ours.
    :param at_most: what is to be reached, by the ratio or, without a reference, by our median.
    :param missing: why it, or its reference, was not measured.
    """

    what: str
    unit: str
    ours: Sequence[float] = ()
    name: str = ""
    theirs: Sequence[float] = ()
    at_most: float | None = None
    missing: str = ""

    @property
    def ratio(self) -> Spread | None:
        """Ours by the reference's, pair by pair."""
        pairs = list(zip(self.ours, self.theirs, strict=False))
        return Spread.of([ours / theirs for ours, theirs in pairs]) if pairs else None

    @property
    def reached(self) -> bool | None:
        """Whether it is what it is to be; None if nothing is asked or it was not measured."""
        if self.at_most is None or not self.ours or (self.name and not self.theirs):
            return None
        ratio = self.ratio
        return (ratio.median if ratio else Spread.of(self.ours).median) <= self.at_most

    def document(self) -> dict[str, Any]:
        """As JSON, the samples too."""
        ratio = self.ratio
        return asdict(self) | {"ratio": ratio and asdict(ratio), "reached": self.reached}


def interleaved(
    pairs: int, measures: Mapping[str, Measure], *, warm: int = 0
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Measure all in turns, so that whatever else the machine does meets each alike.

    A reference that fails is left out from then on.

    :param measures: by name; ours first.
    :param warm: rounds before the ones that count.
    :returns: the samples by name, and why a reference has none.
    :raises NotMeasuredError: ours failed.
    """
    samples: dict[str, list[float]] = {name: [] for name in measures}
    missing: dict[str, str] = {}
    for number in range(-warm, pairs):
        for name, measure in measures.items():
            if name in missing:
                continue
            try:
                taken = measure()
            except NotMeasuredError as error:
                if name == OURS:
                    raise
                missing[name] = str(error)
                samples[name].clear()
                continue
            say(f"  {'warm-up' if number < 0 else f'{number + 1}/{pairs}'}  {name}: {taken:.3f}")
            if number >= 0:
                samples[name].append(taken)
    return samples, missing


def beside(
    what: str,
    unit: str,
    pairs: int,
    measures: Mapping[str, Measure],
    limits: Mapping[str, float | None],
    *,
    warm: int = 0,
) -> list[Row]:
    """Rows of ours beside each reference, all measured in turns.

    :param limits: name of a reference -> the most that the ratio may be.
    :raises NotMeasuredError: ours failed.
    """
    samples, missing = interleaved(pairs, measures, warm=warm)
    return [
        Row(
            what=what,
            unit=unit,
            ours=samples[OURS],
            name=name,
            theirs=samples[name],
            at_most=limit,
            missing=missing.get(name, ""),
        )
        for name, limit in limits.items()
    ]


def say(text: str) -> None:
    """Progress, for the person who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def show(figure: str, about: str, rows: Sequence[Row]) -> None:
    """One figure as a table."""
    table = Table(title=f"{figure}: {about}", title_justify="left", box=None, pad_edge=False)
    for column in ("what", "ours", "reference", "ratio", "to reach", "reached"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*cells(row))
    width = None if sys.stdout.isatty() else 140
    Console(width=width, highlight=False, markup=False).print(table)


def cells(row: Row) -> tuple[str, ...]:
    """A row as text: what, ours, reference, ratio, to reach, reached."""
    reference = f"{row.name} {Spread.of(row.theirs)} {row.unit}" if row.theirs else row.name
    if row.missing:
        reference = f"{row.name} not measured: {row.missing}".strip()
    limit = ""
    if row.at_most is not None:
        limit = f"at most {row.at_most:.4g}" + ("" if row.name else f" {row.unit}")
    return (
        row.what,
        f"{Spread.of(row.ours)} {row.unit}" if row.ours else "",
        reference,
        str(row.ratio or ""),
        limit,
        {True: "yes", False: "no", None: ""}[row.reached],
    )


def save(figure: str, about: str, rows: Sequence[Row]) -> Path:
    """Write a figure with all its samples, and on what machine they were taken."""
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{figure}-{now:%Y%m%dT%H%M%SZ}.json"
    document = {
        "figure": figure,
        "about": about,
        "time": now.isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "load_at_end": os.getloadavg()[0],
        },
        "rows": [row.document() for row in rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def report(figures: Sequence[str]) -> str:
    """The newest results of these figures as Markdown."""
    lines = [
        "| figure | what | ours | reference | ratio | to reach | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        for path in sorted(RESULTS.glob(f"{figure}-*.json"))[-1:]:
            for found in json.loads(path.read_text())["rows"]:
                row = Row(**{key: found[key] for key in Row.__dataclass_fields__})
                lines.append(f"| `{figure}` | " + " | ".join(cells(row)) + " |")
    return "\n".join(lines)


def _commit() -> str:
    folder = Path(__file__).parent
    done = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _short(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
