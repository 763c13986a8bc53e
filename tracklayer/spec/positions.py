"""Where each key and value of a file was written, so that every later check can point at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from tracklayer.errors import Problem

Loc: TypeAlias = tuple[str | int, ...]
"""Path of keys and list indices from the top of a file, such as ``("train", "script")``."""

Place: TypeAlias = tuple[int, int]
"""Line and column, both from 1."""


@dataclass(frozen=True, slots=True)
class Positions:
    """The places of one file's keys and values.

    All positions are equal to each other: where a thing was written is no part of what it says.
    """

    file: str = field(default="tracklayer.yaml", compare=False)
    values: dict[Loc, Place] = field(default_factory=dict, compare=False)
    keys: dict[Loc, Place] = field(default_factory=dict, compare=False)

    def place(self, loc: Loc, *, key: bool = False) -> Place:
        """Line and column of the value at ``loc`` (or of its key), else of its nearest parent."""
        if not key and loc in self.values:
            return self.values[loc]
        for length in range(len(loc), 0, -1):
            if found := self.keys.get(loc[:length]) or self.values.get(loc[:length]):
                return found
        return self.values.get((), (1, 1))

    def problem(
        self, loc: Loc, message: str, hint: str | None = None, *, key: bool = False
    ) -> Problem:
        """A problem with the value at ``loc``, or with the key itself."""
        line, column = self.place(loc, key=key)
        return Problem(self.file, line, column, message, hint)


def dotted(loc: Loc) -> str:
    """A path as people write it: ``packages.requirements[0]``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
