"""What Terraform is about to do, written down before it does it: no machine without a note."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tracklayer.errors import TerraformError

_NAME = "intent.json"


class Intent(BaseModel):
    """One note in a state folder, about the last thing that was begun there.

    ``labels`` say for whom (project, run, step). ``started`` without a living ``pid`` means that
    something may exist that nobody waits for: ``apply`` or ``destroy`` on the same state folder
    finds and mends it.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    goal: Literal["apply", "destroy"]
    root: str
    labels: dict[str, str] = {}
    status: Literal["started", "done", "failed"] = "started"
    time: datetime
    pid: int | None = None
    created: float | None = None

    @classmethod
    def now(cls, goal: Literal["apply", "destroy"], root: Path, labels: dict[str, str]) -> Self:
        """A note of this moment."""
        return cls(goal=goal, root=str(root), labels=labels, time=datetime.now(UTC))

    @classmethod
    def read(cls, state: Path) -> Self | None:
        """The note of a state folder, if there is one.

        :raises TerraformError: it cannot be read.
        """
        try:
            return cls.model_validate_json((state / _NAME).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise TerraformError(
                f"{state / _NAME} cannot be read: {error}",
                hint="See with `ps` that no terraform is at work there, then remove the file.",
            ) from error

    def write(self, state: Path) -> None:
        """Put the note into a state folder, durably."""
        write_private(state / _NAME, self.model_dump_json(indent=2))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read: the old content or the new, never half."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream)
    fresh.rename(path)
