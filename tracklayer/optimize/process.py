"""The processes of the candidates, from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any

from tracklayer.optimize.worker import JOB

_PASS = 120.0
"""Seconds that one pass over the requests may take."""


class CandidateError(Exception):
    """A candidate cannot be served; the message is what stands in the table."""


class LateError(CandidateError):
    """It took too long."""


class Worker:
    """One candidate that was built, and is there to be timed.

    :param folder: of the candidate; is made.
    """

    def __init__(self, folder: Path, job: dict[str, Any], *, seconds: float) -> None:
        """
        :param seconds: that building it and its answers may take.
        :raises CandidateError: it failed.
        """
        folder.mkdir()
        (folder / JOB).write_text(json.dumps(job))
        self.folder = folder
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tracklayer.optimize.worker", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self.size: int = self._answer(seconds)["size"]
        except BaseException:  # the task that waits for it may be ended
            self.close()
            raise

    def timed(self) -> list[float]:
        """One pass over the requests: the seconds of each.

        :raises CandidateError: it failed.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # how it ended is said where its answer is missing
        seconds: list[float] = self._answer(_PASS)["seconds"]
        return seconds

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout
        begun = time.monotonic()
        timer = Timer(seconds, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            if "failed" in answer:
                raise CandidateError(answer["failed"])
            return answer
        code = self._process.wait()
        if time.monotonic() - begun >= seconds:
            raise LateError(f"took longer than {seconds:g} s")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise CandidateError(f"crashed: {how}")
