"""Who asked for how much: counted exactly, kept by the hour, good enough to write a bill from."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from tracklayer.errors import PlatformError

log = logging.getLogger(__name__)

_EVERY = 0.5
"""Seconds between two writes; what is counted meanwhile is lost if the process is killed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    hour INTEGER NOT NULL, caller TEXT NOT NULL, project TEXT NOT NULL, version INTEGER NOT NULL,
    requests INTEGER NOT NULL, errors INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (hour, caller, project, version)
) WITHOUT ROWID, STRICT
"""
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    errors = errors + excluded.errors, bytes_in = bytes_in + excluded.bytes_in,
    bytes_out = bytes_out + excluded.bytes_out, seconds = seconds + excluded.seconds
"""
_READ = """
SELECT hour, caller, project, version, requests, errors, bytes_in, bytes_out, seconds
FROM usage WHERE hour >= ? AND (? IS NULL OR project = ?) AND (? IS NULL OR caller = ?)
ORDER BY hour, caller, project, version
"""

Who: TypeAlias = tuple[str, str, int]
"""Caller, project, version."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a caller used of a version within an hour, which begins at ``hour``.

    ``errors``: of the requests, those with 5xx or no whole answer. Bytes are of bodies; seconds
    are the servers' time.
    """

    hour: datetime
    caller: str
    project: str
    version: int
    requests: int
    errors: int
    bytes_in: int
    bytes_out: int
    seconds: float


class Usage:
    """Counts in memory and writes to ``file`` in the background.

    :raises PlatformError: the file cannot be opened, or is none of ours.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._counts: dict[tuple[int, Who], list[float]] = {}
        self._totals: dict[tuple[str, str], int] = {}
        self._hour = _this_hour()
        self._stop = asyncio.Event()
        self._failing = False
        with _opened(file, write=True) as database:
            database.execute(_SCHEMA)

    def add(self, who: Who, *, failed: bool, received: int, sent: int, seconds: float) -> None:
        """Count one request."""
        counts = self._counts.get((self._hour, who))
        if counts is None:
            counts = self._counts[self._hour, who] = [0, 0, 0, 0, 0.0]
        counts[0] += 1
        counts[1] += failed
        counts[2] += received
        counts[3] += sent
        counts[4] += seconds

    def by_caller(self) -> dict[tuple[str, str], int]:
        """Requests by caller and project, since the start."""
        found = dict(self._totals)
        for (_, (caller, project, _)), numbers in self._counts.items():
            found[caller, project] = found.get((caller, project), 0) + int(numbers[0])
        return found

    async def keep(self) -> None:
        """Write twice a second, until :meth:`close`."""
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), _EVERY)
            except TimeoutError:
                self._hour = _this_hour()
            await self._write()
        await self._write()  # what was counted during the last write, in which the stop came

    def close(self) -> None:
        """End :meth:`keep`, which writes once more."""
        self._stop.set()

    async def _write(self) -> None:
        if not self._counts:
            return
        totals = self.by_caller()
        counts, self._counts = self._counts, {}
        rows = [(hour, *who, *numbers) for (hour, who), numbers in counts.items()]
        try:
            await asyncio.to_thread(_add, self._file, rows)
        except PlatformError as error:
            if not self._failing:
                log.error("%s; it is tried again", error.message)
            self._failing = True
            for key, numbers in counts.items():  # nothing was written of it
                now = self._counts.setdefault(key, [0, 0, 0, 0, 0.0])
                self._counts[key] = [a + b for a, b in zip(now, numbers, strict=True)]
        else:
            self._failing = False
            self._totals = totals


def used(
    file: Path,
    *,
    since: datetime | None = None,
    project: str | None = None,
    caller: str | None = None,
) -> list[Used]:
    """What was written, by hour, caller, project and version.

    :param since: from the hour of this time on.
    :raises PlatformError: the file cannot be read.
    """
    if not file.exists():
        return []
    begin = int(since.timestamp()) // 3600 if since else 0
    with _opened(file, write=False) as database:
        rows = database.execute(_READ, (begin, project, project, caller, caller)).fetchall()
    return [Used(datetime.fromtimestamp(hour * 3600, UTC), *rest) for hour, *rest in rows]


def _this_hour() -> int:
    return int(time.time()) // 3600


def _add(file: Path, rows: list[tuple[object, ...]]) -> None:
    with _opened(file, write=True) as database:
        database.executemany(_ADD, rows)


@contextmanager
def _opened(file: Path, *, write: bool) -> Iterator[sqlite3.Connection]:
    """The database, in one transaction.

    :raises PlatformError: it cannot be used; nothing was written.
    """
    try:
        if write:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
        with closing(sqlite3.connect(file, timeout=30.0)) as database, database:
            if write:
                database.execute("PRAGMA journal_mode = WAL")
            yield database
    except (sqlite3.Error, OSError) as error:
        raise PlatformError(f"the usage in {file} cannot be used: {error}") from error
