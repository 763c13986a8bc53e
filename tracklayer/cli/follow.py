"""Watching a run: a line a step, rewritten in a terminal, and one a change everywhere else."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tracklayer.cli.client import ENDED, STEP_ENDED, Platform, Step
from tracklayer.cli.logs import LogReader, reason
from tracklayer.cli.output import Output, seconds
from tracklayer.cli.transport import UnreachableError
from tracklayer.errors import JobFailed

if TYPE_CHECKING:
    from tracklayer.cli.transport import Data

_INTERVAL = 0.4  # seconds between two looks
_PATIENCE = 60.0  # seconds without an answer: time enough for a web server to be restarted
_TAIL = 6  # lines of the running step's log
_LOOK = {
    "success": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "upstream_failed": ("·", "dim"),
    "skipped": ("-", "dim"),
    "removed": ("-", "dim"),
    "up_for_retry": ("↻", "yellow"),
}
_WORDS = {"upstream_failed": "not reached", "up_for_retry": "to be tried again"}


@dataclass(frozen=True)
class Outcome:
    """A run that ended. ``failure`` is the step that failed first and what it said."""

    project: str
    run: str
    state: str
    seconds: float | None
    steps: list[Step]
    failure: tuple[str, str] | None

    def document(self) -> Data:
        """As data for ``--json``."""
        found: Data = {
            "project": self.project,
            "run": self.run,
            "state": self.state,
            "steps": [step.document() for step in self.steps],
        }
        if self.failure:
            found["error"] = dict(zip(("step", "message"), self.failure, strict=True))
        return found

    def raise_for_failure(self) -> None:
        """:raises JobFailed: the run failed; with the message of the step that did."""
        if self.failure:
            step, message = self.failure
            raise JobFailed(
                f"The run {self.run} of {self.project} failed at the step {step}:\n{message}",
                hint=f"All of its log: `tracklayer logs {self.project} {step} --run {self.run}`.",
            )
        if self.state != "success":
            raise JobFailed(f"The run {self.run} of {self.project} failed.")


def follow(platform: Platform, project: str, run: str, output: Output) -> Outcome:
    """Show a run until it ends.

    :raises UnreachableError: the platform has not answered for a minute.
    """
    order = platform.order(project)
    with (_Terminal if output.live else _Lines)(output) as view:
        steps: list[Step] = []
        reader: tuple[str, LogReader] | None = None
        answered = time.monotonic()
        while True:
            try:
                # The run first: its end is seen only with the last states of its steps.
                data = platform.run(project, run)
                steps = platform.steps(project, run, order)
                if view.wants_log and (running := _running(steps)):
                    key = f"{running.name}/{running.tries}"
                    if reader is None or reader[0] != key:
                        reader = (key, LogReader(platform, project, run, running))
                        view.clear_log()
                    view.add_log([line.styled() for line in reader[1].read()])
                answered = time.monotonic()
            except UnreachableError:
                if time.monotonic() - answered > _PATIENCE:
                    raise
                time.sleep(_INTERVAL)
                continue
            view.show(steps)
            if data["state"] in ENDED:
                break
            time.sleep(_INTERVAL)
    failure = None
    if ended := [step for step in steps if step.state == "failed"]:
        failed = min(ended, key=lambda step: str(step.ended))
        said = reason(LogReader(platform, project, run, failed).read())
        failure = (failed.name, said or "It said nothing.")
    return Outcome(project, run, data["state"], data["duration"], steps, failure)


def _running(steps: list[Step]) -> Step | None:
    """The step whose log is worth reading: of several, the one that started last."""
    running = [step for step in steps if step.state == "running" and step.started]
    return max(running, key=lambda step: str(step.started), default=None)


def describe(step: Step) -> Text:
    """A step as one line of text."""
    mark, style = _LOOK.get(step.state, ("·", ""))
    text = Text(f"{mark} {step.name:<20} {word(step.state):<18}", style=style)
    if step.state in ("success", "failed", "running") and step.seconds is not None:
        text.append(f"{seconds(step.seconds):>9}", style="default")
    if step.tries > 1:
        text.append(f"  (try {step.tries})", style="default")
    return text


def word(state: str) -> str:
    """Airflow's word for a state, or ours where that is clearer."""
    return _WORDS.get(state, state)


class _Lines:
    """A line a change: for logs, pipes and machines."""

    wants_log = False

    def __init__(self, output: Output) -> None:
        self._output = output
        self._seen: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def clear_log(self) -> None:
        """Nothing of it was shown."""

    def add_log(self, lines: list[Text]) -> None:
        """Not asked for."""

    def show(self, steps: list[Step]) -> None:
        for step in steps:
            now = (step.state, step.tries)
            if step.state in ("waiting", "scheduled", "queued") or self._seen.get(step.name) == now:
                continue
            self._seen[step.name] = now
            # What had not ended when it was seen has a time that says nothing.
            shown = step if step.state in STEP_ENDED else replace(step, started=None)
            line = describe(shown)
            line.rstrip()
            self._output.say(line)


class _Terminal:
    """The steps with spinners and times, below them the end of the running one's log."""

    wants_log = True

    def __init__(self, output: Output) -> None:
        self._steps: list[Step] = []
        self._tail: deque[Text] = deque(maxlen=_TAIL)
        self._spinner = Spinner("dots")
        # Drawn by its own thread, so that spinners and times move between two looks.
        self._live = Live(console=output.progress, get_renderable=self._draw, refresh_per_second=8)

    def __enter__(self) -> _Terminal:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tail.clear()
        self._live.stop()

    def clear_log(self) -> None:
        self._tail.clear()

    def add_log(self, lines: list[Text]) -> None:
        self._tail.extend(lines)

    def show(self, steps: list[Step]) -> None:
        self._steps = steps

    def _draw(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(no_wrap=True)
        for step in self._steps:
            line = describe(step)
            if step.state == "running":
                grid.add_row(self._spinner, line[2:])
            else:
                grid.add_row(line[:1], line[2:])
        tail = [Text("  │ ", style="dim").append_text(line) for line in tuple(self._tail)]
        for line in tail:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(grid, *tail)
