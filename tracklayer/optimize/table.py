"""The table of candidates: for the task's log, the run record and MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One candidate.

    :param size: bytes of the model folder.
    :param error: against the registered model, by ``metric``.
    :param median_ms: of one request, on one thread.
    :param speedup: how many times as fast as the registered model it is.
    :param allowed: its error is within the budget, and it works.
    :param why: why it is not the one that is served; empty for the one that is.
    :param seconds: that it took to build it and to have it answer.
    """

    name: str
    size: int | None = None
    error: float | None = None
    metric: str = ""
    median_ms: float | None = None
    p95_ms: float | None = None
    speedup: float | None = None
    allowed: bool = False
    chosen: bool = False
    why: str = ""
    seconds: float | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


_COLUMNS = ("candidate", "MB", "error", "median ms", "p95 ms", "speed", "allowed", "why not")


def text(rows: Sequence[Row]) -> list[str]:
    """The table as aligned lines; the candidate that is served has an asterisk."""
    cells = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    return [
        "  ".join(
            # Numbers to the right, so that they can be compared.
            cell.rjust(width) if 0 < column < 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{'*' if row.chosen else ' '} {row.name}",
        "" if row.size is None else f"{row.size / 1e6:.2f}",
        "" if row.error is None else f"{row.error:.2g} {row.metric}",
        "" if row.median_ms is None else f"{row.median_ms:.3g}",
        "" if row.p95_ms is None else f"{row.p95_ms:.3g}",
        "" if row.speedup is None else f"{row.speedup:.2f}x",
        "yes" if row.allowed else "no",
        row.why,
    )
