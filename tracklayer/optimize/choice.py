"""Candidates are built, held against the model as it was registered, timed; the fastest is taken.

A candidate is allowed if its answers keep to the error budget on held-out rows. Without held-out
rows only those are allowed that compute in FP32 as before and answer alike within rounding. It is
chosen if it is faster than the registered model by more than the noise: nothing slower is served.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tracklayer.optimize import holdout, timing
from tracklayer.optimize.candidates import CANDIDATES, REGISTERED
from tracklayer.optimize.network import lack
from tracklayer.optimize.table import Row
from tracklayer.optimize.task import Budget, Task
from tracklayer.optimize.worker import MODEL
from tracklayer.serving import formats
from tracklayer.serving.verification import FILE, feeds_of, request_for


@dataclass(frozen=True)
class Choice:
    """What was found.

    :param rows: the table, the registered model first.
    :param folder: the model folder that is to be served; None: the registered one.
    :param note: what limits the choice, for the log.
    """

    rows: list[Row]
    folder: Path | None
    note: str = ""

    @property
    def chosen(self) -> Row:
        """The row of what is to be served."""
        return next(row for row in self.rows if row.chosen)


def choose(
    folder: Path,
    work: Path,
    *,
    data: Path | None = None,
    budget: Budget | None = None,
    candidates: Sequence[str] = tuple(CANDIDATES),
    rounds: int = timing.ROUNDS,
    on_line: Callable[[str], None] = lambda _line: None,
) -> Choice:
    """Find the fastest way to serve the model in ``folder`` that keeps to the budget.

    :param work: an empty folder for what is built; the chosen model folder lies in it.
    :param data: file of held-out data; None: what lies in the model folder, if anything does.
    :param candidates: those that are tried.
    :param on_line: told what is going on.
    :raises ModelError: the registered model cannot be served, or the held-out data is no such.
    """
    if why := lack(folder):
        return Choice([Row("as registered", allowed=True, chosen=True)], None, why)
    model = formats.load(folder)
    signature, request = model.signature, request_for(model, folder)
    task = Task(folder, work, signature, budget or Budget(), data or holdout.find(folder))
    task.prepare(feeds_of(model, request))
    del model
    with ExitStack() as workers:
        rows = {name: task.row(name, workers, on_line) for name in candidates}
        task.time(rows, rounds)
    chosen = task.pick(rows)
    rows[chosen] = replace(rows[chosen], chosen=True, why="")
    served = None
    if chosen != REGISTERED:
        served = work / chosen / MODEL
        (served / FILE).write_text(json.dumps(request))
    return Choice(list(rows.values()), served, task.note)
