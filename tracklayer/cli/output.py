"""What a command says: its result on stdout, everything else where it does not disturb that."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer.errors import SpecError, TracklayerError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_PIPE_WIDTH = 200
"""Columns where there is no terminal to ask: a log has no edge at which to fold a line."""


class Output:
    """Where one command writes.

    :param as_json: the result is JSON, alone on stdout; progress goes to stderr.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.progress = _console(stderr=as_json)

    @property
    def live(self) -> bool:
        """May lines that were written be written over?"""
        return self.progress.is_terminal and self.progress.is_interactive

    def say(self, text: RenderableType = "") -> None:
        """One line of progress."""
        self.progress.print(text, markup=False, highlight=False, soft_wrap=isinstance(text, str))

    def result(self, data: Any, *views: RenderableType) -> None:
        """The outcome: ``data`` as JSON, or ``views`` for a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, indent=2, default=_plain) + "\n")
            return
        for view in views:
            self.say(view)

    def line(self, data: Any, view: RenderableType) -> None:
        """One part of an outcome that comes bit by bit: a JSON document a line."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, default=_plain) + "\n")
            sys.stdout.flush()
        else:
            self.say(view)


def show_error(error: TracklayerError, *, as_json: bool) -> None:
    """An error that ends a command: red on stderr, or as JSON on stdout."""
    if as_json:
        sys.stdout.write(json.dumps({"error": error_document(error)}, indent=2) + "\n")
        return
    from rich.text import Text

    console = _console(stderr=True)
    console.print(Text(error.message, style="bold red"), soft_wrap=True)
    if error.hint:
        console.print(Text(error.hint), soft_wrap=True)


def error_document(error: TracklayerError) -> dict[str, Any]:
    """An error as data; ``problems`` only for a broken spec."""
    found: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, SpecError):
        found["problems"] = [dataclasses.asdict(problem) for problem in error.problems]
    return found


def table(*columns: str) -> Table:
    """An empty table, as plain as a log needs it; a column named ``>x`` is aligned right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name.removeprefix(">"), justify="right" if name[:1] == ">" else "left")
    return made


def seconds(value: float | None) -> str:
    """A duration for a table: ``0.4 s``, ``12 s``, ``3 m 20 s``, ``2 h 5 m``."""
    if value is None:
        return ""
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} m {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} m"


def moment(value: datetime | None) -> str:
    """A time for a table, in this machine's time zone."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else ""


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
