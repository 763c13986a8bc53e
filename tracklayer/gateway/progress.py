"""How far a rollout is, on the disk: for the next try, and for whoever steers it meanwhile."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tracklayer.errors import PlatformError
from tracklayer.files import locked, write_text

Order = Literal["go", "pause", "promote", "back"]

_POLL = 0.1  # seconds


class Progress(BaseModel):
    """A rollout that is under way.

    :param version: that takes over.
    :param old: that answers, and is gone back to; None: the project's first version takes over.
    :param step: index of the step that it is at.
    :param share: percent of the requests that the version has.
    :param keep: how many earlier versions stay up.
    :param order: what a person wants: to ``go`` on, to ``pause``, to ``promote`` the version now,
        to go ``back``.
    :param by: who gave the order, and why.
    :param actor: who deploys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    old: int | None
    step: int = 0
    share: int = 0
    keep: int = 1
    order: Order = "go"
    by: str = ""
    actor: str


class Journal:
    """The progress of one project's rollout: a file, and two locks.

    The deployer holds one lock as long as it lives: two rollouts wait for each other, and who is
    killed lets go of it. The other is held for the moment of one change, of the file and of the
    route that goes with it.

    :param folder: of all projects; only its owner can read it.
    """

    def __init__(self, folder: Path, project: str) -> None:
        self._folder = folder
        self._file = folder / f"{project}.json"
        self._change = folder / f"{project}.lock"
        self._deployer = folder / f"{project}.deployer"

    def read(self) -> Progress | None:
        """How far a rollout is; None if there is none.

        :raises PlatformError: the file is damaged.
        """
        try:
            return Progress.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise PlatformError(
                f"the state of the rollout in {self._file} is damaged",
                hint="Move it away; the next deployment then starts from what answers now.",
            ) from error

    def write(self, progress: Progress | None) -> None:
        """Replace it; None: there is no rollout any more. Within :meth:`changing`.

        :raises PlatformError: it cannot be written; it is as it was.
        """
        try:
            if progress is None:
                self._file.unlink(missing_ok=True)
            else:
                write_text(self._file, progress.model_dump_json(indent=1))
        except OSError as error:
            raise PlatformError(f"cannot write {self._file}: {error.strerror}") from error

    @contextmanager
    def changing(self) -> Iterator[Progress | None]:
        """Nobody else changes the progress, or the route, within this."""
        self._make_folder()
        with locked(self._change):
            yield self.read()

    @contextmanager
    def deploying(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Be the deployer, as soon as no other process is; ``on_wait`` is called once if one is."""
        self._make_folder()
        descriptor = os.open(self._deployer, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _taken(descriptor):
                on_wait()
                while not _taken(descriptor):
                    time.sleep(_POLL)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def unless_deployed(self) -> Iterator[bool]:
        """Be the deployer if no other process is; whether that is so."""
        self._make_folder()
        descriptor = os.open(self._deployer, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _taken(descriptor)
        finally:
            os.close(descriptor)

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PlatformError(f"cannot make {self._folder}: {error.strerror}") from error


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
