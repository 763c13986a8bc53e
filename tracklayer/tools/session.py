"""A program in a process session of its own: it outlives who started it and is found again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

import psutil

_POLL = 0.02  # seconds between looks at the output
_GRACE = 1.0  # seconds that what is left of a session has to end


class Session:
    """A running or ended program and all that it started.

    Its output goes to a file, not to a pipe: a program that writes to the pipe of a dead reader is
    killed by it, in the middle of whatever it was making.
    """

    def __init__(self, process: psutil.Process, output: Path) -> None:
        self.pid = process.pid
        self.created = process.create_time()
        self._process = process
        self._output = output
        self._asked = False
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, argv: list[str], *, cwd: Path, env: dict[str, str], output: Path) -> Self:
        """Start a program; its files are readable by their owner only.

        :raises OSError: it cannot be started.
        """
        with output.open("wb") as stream:
            output.chmod(0o600)
            child = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        session = cls(psutil.Process(child.pid), output)
        session._child = child
        return session

    @classmethod
    def find(cls, pid: int, created: float, output: Path) -> Self | None:
        """A program that somebody else started, if it still runs."""
        with suppress(psutil.NoSuchProcess):
            session = cls(psutil.Process(pid), output)
            if session.created == created and not session.ended():
                return session
        return None

    def ended(self) -> bool:
        """Whether the program itself has ended; what it started may still run."""
        try:
            return self._process.status() == psutil.STATUS_ZOMBIE or not self._process.is_running()
        except psutil.NoSuchProcess:
            return True

    def follow(
        self,
        on_line: Callable[[str], None],
        *,
        deadline: float,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Pass on each line of the output until the program ends.

        :param deadline: on the clock of :func:`time.monotonic`.
        :param stop: asked all the time; True ends the following, not the program.
        :returns: whether the program ended.
        """
        with self._output.open("rb") as stream:
            part = b""
            while True:
                ended = self.ended()  # asked first: what follows is then all that there is
                part = _pass_on(stream, part, on_line)
                if ended:
                    if part:
                        on_line(part.decode(errors="replace"))
                    return True
                if stop() or time.monotonic() > deadline:
                    return False
                time.sleep(_POLL)

    def interrupt(self) -> None:
        """Ask for a clean end; further calls do nothing, because programs take a second request
        for "at once". Only a system call: safe in a signal handler.
        """
        if not self._asked:
            self._asked = True
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGINT)

    def finish(self) -> int | None:
        """End what is left of the session, then the exit code: None if it is not our child."""
        left = [process for process in psutil.process_iter() if self._left(process)]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, stubborn = psutil.wait_procs(left, timeout=_GRACE)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_GRACE)
        return self._child.wait() if self._child else None

    def _left(self, process: psutil.Process) -> bool:
        # As long as anything of the session lives, its number is not given to another.
        try:
            return os.getsid(process.pid) == self.pid and (process.status() != psutil.STATUS_ZOMBIE)
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False


def _pass_on(stream: BinaryIO, part: bytes, on_line: Callable[[str], None]) -> bytes:
    *lines, part = (part + stream.read()).split(b"\n")
    for line in lines:
        on_line(line.decode(errors="replace"))
    return part
