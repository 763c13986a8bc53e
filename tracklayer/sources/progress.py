"""How far a fetch is, for people and for a terminal's bar."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tracklayer.sources.protocol import Progress, Transfer

_LINE = 1.0  # seconds between two lines
_BAR = 0.1
_WINDOW = 5.0  # seconds that the rate is taken over

OnBytes = Callable[[Transfer], None]


class Meter:
    """Counts bytes and files; any thread may count, one thread tells.

    :param what: is being fetched, for people: without secrets.
    """

    def __init__(self, what: str, report: Progress, on_bytes: OnBytes | None = None) -> None:
        self.report = report
        self.total = self.files_total = self.files_done = 0
        self._what, self._on_bytes = what, on_bytes
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._there = self._received = 0
        self._begin = self._said = self._shown = time.monotonic()
        self._marks = [(self._begin, 0)]

    def expect(self, size: int, files: int = 0) -> None:
        """So much more is to come, or less if it is negative."""
        with self._lock:
            self.total += size
            self.files_total += files

    def found(self, size: int) -> None:
        """So much was there already, or what was there is of no use if it is negative."""
        with self._lock:
            self._there += size

    @contextmanager
    def receiving(self) -> Iterator[Callable[[int], None]]:
        """Count what comes; what came before an error was in vain, and is taken back."""
        whole = 0

        def count(size: int) -> None:
            nonlocal whole
            whole += size
            with self._lock:
                self._received += size

        try:
            yield count
        except BaseException:
            count(-whole)
            raise

    def finished(self, files: int = 1) -> None:
        """One more file is whole."""
        with self._lock:
            self.files_done += files

    def say(self, line: str) -> None:
        """Have a line told by the thread that tells."""
        self._lines.append(line)

    def now(self) -> Transfer:
        """The state; the rate is that of the last seconds."""
        moment = time.monotonic()
        with self._lock:
            while len(self._marks) > 1 and self._marks[1][0] < moment - _WINDOW:
                del self._marks[0]
            since, before = self._marks[0]
            if moment - self._marks[-1][0] >= _BAR:
                self._marks.append((moment, self._received))
            rate = (self._received - before) / max(moment - since, 0.001)
            done = self._there + self._received
            return Transfer(done, self.total, self.files_done, self.files_total, rate)

    def tick(self) -> None:
        """Tell whoever listens, if it is time."""
        moment = time.monotonic()
        while self._lines:
            self.report(self._lines.popleft())
        if self._on_bytes and moment >= self._shown + _BAR:
            self._shown = moment
            self._on_bytes(self.now())
        if moment >= self._said + _LINE:
            self._said = moment
            self.report(self._line(self.now()))

    def end(self) -> None:
        """Tell that all is there."""
        state = self.now()
        if self._on_bytes:
            self._on_bytes(state)
        seconds = max(time.monotonic() - self._begin, 0.001)
        self.report(
            f"{self._what}: {amount(state.done)} in {_files(state.files_done)}, "
            f"{amount(self._received)} fetched in {seconds:.1f} s, "
            f"{amount(self._received / seconds)}/s"
        )

    def _line(self, state: Transfer) -> str:
        line = f"{self._what}: {amount(state.done)} of {amount(max(state.total, state.done))}"
        line += f", {amount(state.rate)}/s"
        if state.rate > 0 and state.total > state.done:
            line += f", {duration((state.total - state.done) / state.rate)} left"
        if state.files_total > 1:
            number = min(state.files_done + 1, state.files_total)
            line += f", file {number} of {state.files_total}"
        return line


def amount(size: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.95 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time for people: ``40 s``, ``3 min``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
