"""The record of one run: what each step found and made, written once and never changed."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from tracklayer.errors import TrackingError
from tracklayer.private import run_name

_STEP = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*")
_FILE = re.compile(rf"(?P<step>{_STEP.pattern})\.(?P<try>[0-9]+)\.json")


def run_folder(runs: Path, project: str, run: str) -> Path:
    """The folder of a run's record."""
    return runs / project / run_name(run)


class RunRecord:
    """A folder with one file a step and try; only its owner can read it.

    :param folder: ``<project>/<run>``; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._folder = folder / "record"

    def begin(self, *, project: str, run: str, commit: str) -> None:
        """Note what is run. A second call with the same values changes nothing.

        :raises TrackingError: the folder is that of another run.
        """
        head = {"project": project, "run": run, "commit": commit}
        if not _write_new(self._folder / "run.json", head) and self._head() != head:
            raise TrackingError(f"{self._folder} is the record of another run: {self._head()}.")

    def write(self, step: str, data: dict[str, Any]) -> int:
        """Add what a step has to say; as its next try, if it spoke before.

        :param step: such as ``train``, or ``fetch.data`` for one of several.
        :param data: values that JSON has.
        :returns: the number of the try, from 1.
        :raises ValueError: the name is no step's, or the data cannot be JSON.
        :raises TrackingError: it cannot be written.
        """
        if not _STEP.fullmatch(step) or step == "run":
            raise ValueError(f"{step!r} is no name of a step")
        number = 1 + max((tried for tried, _ in self._tries(step)), default=0)
        while not _write_new(
            self._folder / f"{step}.{number}.json",
            {"step": step, "try": number, "at": datetime.now(UTC).isoformat(), "data": data},
        ):
            number += 1
        return number

    def read(self, step: str) -> dict[str, Any]:
        """What the last try of a step wrote.

        :raises TrackingError: it has written nothing.
        """
        if (data := self.find(step)) is None:
            raise TrackingError(f"The run record {self._folder} has nothing from step `{step}`.")
        return data

    def find(self, step: str) -> dict[str, Any] | None:
        """What the last try of a step wrote; None if it has written nothing."""
        tries = self._tries(step)
        if not tries:
            return None
        data: dict[str, Any] = json.loads(max(tries)[1].read_bytes())["data"]
        return data

    def document(self) -> dict[str, Any]:
        """All of it as one document.

        ``project``, ``run``, ``commit``; ``steps``: what the last try of each step wrote;
        ``log``: every try in order of time, with ``data`` if a later one took its place.
        """
        entries = [json.loads(path.read_bytes()) for path in self._folder.glob("*.[0-9]*.json")]
        entries.sort(key=lambda entry: (entry["at"], entry["step"], entry["try"]))
        steps: dict[str, Any] = {}
        log: list[dict[str, Any]] = []
        for entry in reversed(entries):
            if entry["step"] not in steps:
                steps[entry["step"]] = entry.pop("data")
            log.insert(0, entry)
        return {**self._head(), "steps": dict(sorted(steps.items())), "log": log}

    def _head(self) -> dict[str, str]:
        path = self._folder / "run.json"
        found: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def _tries(self, step: str) -> list[tuple[int, Path]]:
        """Every try of a step and its file."""
        named = [(_FILE.fullmatch(path.name), path) for path in self._folder.glob(f"{step}.*.json")]
        return [(int(name["try"]), path) for name, path in named if name and name["step"] == step]


def _write_new(path: Path, value: dict[str, Any]) -> bool:
    """Write a file whole or not at all; False if it exists.

    :raises ValueError: the value cannot be JSON.
    :raises TrackingError: it cannot be written.
    """
    text = json.dumps(value, allow_nan=False, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".") as draft:
            draft.write(text)
            draft.flush()
            os.fsync(draft.fileno())
            try:
                path.hardlink_to(draft.name)  # unlike a rename, it never replaces
            except FileExistsError:
                return False
    except OSError as error:
        hint = "The disk may be full, or the home not writable."
        raise TrackingError(f"{path} cannot be written: {error.strerror}.", hint=hint) from None
    return True
