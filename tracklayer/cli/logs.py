"""A step's log, read bit by bit and without what Airflow says about itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from tracklayer import errors
from tracklayer.cli.client import Platform, Step, time_of

if TYPE_CHECKING:
    from tracklayer.cli.transport import Data

_STYLES = {"warning": "yellow", "error": "red", "critical": "bold red", "debug": "dim"}
_BAD = frozenset({"error", "critical"})
_NO_COLOUR = re.compile(
    r"\x1b(?!\[[\d;]*m)(\][^\x07\x1b]*(\x07|\x1b\\)?|\[[0-?]*[ -/]*[@-~]?|[^\[])?"
)
"""Codes for a terminal other than colours (ECMA-48): they move cursors and change titles."""
_REASON = 12
"""Lines that explain a failure; the whole is in the log."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log."""

    time: datetime | None
    level: str
    text: str

    def document(self, step: str) -> Data:
        """As data for ``--json``."""
        return {"step": step, "time": self.time, "level": self.level, "text": self.text}

    def styled(self) -> Text:
        """For a terminal: colours that the step itself printed are kept, other codes are not."""
        text = _text(self.text)
        text.stylize_before(_STYLES.get(self.level, ""))
        return text


class LogReader:
    """Reads on in the log of one step.

    Airflow wraps its own messages in groups and repeats where the log comes from at each read;
    of those only errors are passed on.
    """

    def __init__(self, platform: Platform, project: str, run: str, step: Step) -> None:
        self._platform = platform
        self._at = (project, run, step)
        self._position: str | None = None
        self._depth = 0

    def read(self) -> list[Line]:
        """The lines since the last call."""
        content, position = self._platform.log(*self._at, position=self._position)
        self._position = position or self._position
        return [line for part in content for line in self._lines(part)]

    def _lines(self, part: Data | str) -> Iterator[Line]:
        data = {"event": part} if isinstance(part, str) else part
        event, level = str(data.get("event", "")), str(data.get("level", "info"))
        if event.startswith("::group::"):
            self._depth += 1
        elif event.startswith("::endgroup::"):
            self._depth = max(0, self._depth - 1)
        elif event == "Task exited" and "exit_code" in data:
            return  # Airflow's word for what the step itself has explained in the line before
        elif self._depth == 0 or level in _BAD:
            time = time_of(data.get("timestamp"))
            for text in (_exception(data) or event).splitlines() or [""]:
                yield Line(time, level, text)


def reason(lines: list[Line]) -> str:
    """Why a step failed: the errors at the end of its log, or if it has none its end."""
    bad = [line.text for line in lines if line.level in _BAD]
    said = bad[-_REASON:] or [line.text for line in lines[-_REASON:]]
    return "\n".join(_text(text).plain for text in said).strip()


def _text(line: str) -> Text:
    return Text.from_ansi(_NO_COLOUR.sub("", line))


def _exception(data: Data) -> str | None:
    """The exception in a log entry; without its type, if it is one that is meant for users."""
    details = data.get("error_detail")
    if not details:
        return None
    kind, value = str(details[0].get("exc_type", "")), str(details[0].get("exc_value", ""))
    return value if value and hasattr(errors, kind) else f"{kind}: {value}".removesuffix(": ")
