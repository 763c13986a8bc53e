"""The deployment ledger: what was deployed, by whom, why, and who answered after it.

A file of JSON lines that is only ever added to. Each entry carries the hash of the one before, and
a second file the hash of the last one: a line that was changed, taken out or cut off is found. That
shows damage and careless hands; who may write both files can also write a new history.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tracklayer.errors import TrackingError
from tracklayer.files import locked, write_text

Event = Literal[
    "deploy", "step", "live", "promote", "pause", "resume", "rollback", "abort", "found"
]
"""``deploy``: a rollout begins; ``step``: a version gets a share; ``live``: it has passed and
answers alone; ``found``: others answer than was noted, since a deployer was killed."""

_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_BEGINNING = "0" * 64


class Entry(BaseModel):
    """One event.

    :param number: from 1, over all projects.
    :param version: that the event is about.
    :param weights: version to share of the requests after the event; empty: nobody answers.
    :param actor: a user of this machine, or of Airflow.
    :param run: the Airflow run that deployed.
    :param commit: of the project's files.
    :param digest: of the model's files in the store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    time: AwareDatetime
    project: str
    event: Event
    version: int
    weights: dict[int, int]
    actor: str
    run: str | None = None
    commit: str | None = None
    digest: str | None = None
    reason: str = ""
    previous: _Hash
    hash: _Hash

    @property
    def shares(self) -> dict[int, float]:
        """Version to percent of the requests; versions without a share are left out."""
        total = sum(self.weights.values())
        return {v: 100 * weight / total for v, weight in sorted(self.weights.items()) if weight}


class _Head(BaseModel):
    """The last entry that was written."""

    number: int = 0
    hash: _Hash = _BEGINNING


@dataclass(frozen=True, slots=True)
class Reading:
    """The ledger as it was read. ``problems`` says what is wrong with it, a line each."""

    entries: list[Entry]
    problems: list[str]

    def of(self, project: str) -> list[Entry]:
        """The entries of a project, oldest first."""
        return [entry for entry in self.entries if entry.project == project]

    def at(self, project: str, moment: datetime) -> Entry | None:
        """The last entry of a project at a moment: its weights say who answered then."""
        before = [entry for entry in self.of(project) if entry.time <= moment]
        return before[-1] if before else None


class Ledger:
    """The ledger in a file; only its owner can read it. Several processes may add at once.

    :param path: the lines; the last hash is beside it, in ``<path>.head``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head = path.with_name(f"{path.name}.head")

    def append(
        self,
        project: str,
        event: Event,
        version: int,
        weights: Mapping[int, int],
        *,
        actor: str,
        run: str | None = None,
        commit: str | None = None,
        digest: str | None = None,
        reason: str = "",
    ) -> Entry:
        """Add an entry; it is on the disk when this returns.

        What a killed process left of a line is taken away first: it was never said to be there.

        :raises TrackingError: it cannot be written; the entries before are whole.
        """
        with self._alone(), self._opened() as file:
            tip = self._tip(file)
            fields: dict[str, Any] = {
                "number": tip.number + 1,
                "time": datetime.now(UTC).isoformat(),
                "project": project,
                "event": event,
                "version": version,
                "weights": {str(v): weight for v, weight in weights.items()},
                "actor": actor,
                "run": run,
                "commit": commit,
                "digest": digest,
                "reason": reason,
                "previous": tip.hash,
            }
            fields["hash"] = _hash(fields)
            file.write(_text(fields) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            head = _Head(number=fields["number"], hash=fields["hash"])
            write_text(self._head, head.model_dump_json())
        return Entry.model_validate(fields)

    def read(self) -> Reading:
        """All entries that can be read, and what is wrong.

        :raises TrackingError: it cannot be read.
        """
        if not self._path.parent.exists():
            return Reading([], [])
        with self._alone():
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else [b""]
            head = self._last()
        *whole, cut = lines
        entries: list[Entry] = []
        problems: list[str] = []
        expected: _Head | None = _Head()
        for number, line in enumerate(whole, 1):
            where = f"{self._path}:{number}"
            try:
                entry = _parsed(line)
            except ValueError:
                problems.append(f"{where}: this line was damaged or changed")
                expected = None
                continue
            if expected and (entry.previous, entry.number) != (expected.hash, expected.number + 1):
                problems.append(f"{where}: entries before this one are missing")
            entries.append(entry)
            expected = _Head(number=entry.number, hash=entry.hash)
        if cut:
            problems.append(f"{self._path}:{len(lines)}: the last line is not whole")
        known = {entry.hash for entry in entries}
        if head.number and head.hash not in known:
            problems.append(f"{self._path}: entries at the end are missing, up to {head.number}")
        return Reading(entries, problems)

    def _tip(self, file: BinaryIO) -> _Head:
        """The entry that the next one follows, with all after the last whole line cut off."""
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            file.truncate(len(whole))
        head = self._last()
        try:
            last = _parsed(whole[:-1].rpartition(b"\n")[2])
        except ValueError:  # none, or a damaged one: what was last is known from the head
            return head
        return _Head(number=last.number, hash=last.hash) if last.number > head.number else head

    def _last(self) -> _Head:
        try:
            return _Head.model_validate_json(self._head.read_bytes())
        except FileNotFoundError:
            return _Head()
        except ValidationError as error:
            raise TrackingError(
                f"the ledger's file {self._head} is damaged",
                hint="Move it away: the next entry makes a new one.",
            ) from error

    def _opened(self) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(self._path, flags, 0o600), "ab")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self._path.with_name(f"{self._path.name}.lock")):
                yield
        except OSError as error:
            raise TrackingError(
                f"cannot use the ledger {self._path}: {error.strerror}",
                hint="The disk may be full, or the home not writable.",
            ) from error


def _parsed(line: bytes) -> Entry:
    """:raises ValueError: it is no entry, or was changed."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("hash") != _hash(fields):
        raise ValueError("changed")
    return Entry.model_validate(fields)


def _hash(fields: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in fields.items() if name != "hash"}
    return hashlib.sha256(_text(rest)).hexdigest()


def _text(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
