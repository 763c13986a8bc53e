"""The chunks of a file that nobody has asked for yet."""

from __future__ import annotations

from collections.abc import Iterable

_LEAST, _MOST = 4, 16  # chunks of one request


class Span:
    """Chunks from ``first`` up to ``end``; it shrinks while they arrive."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end

    def __len__(self) -> int:
        return self.end - self.first


class Spans:
    """Runs of chunks, in order.

    :param missing: the indices of the chunks, in order.
    """

    def __init__(self, missing: Iterable[int] = ()) -> None:
        self._runs: list[Span] = []
        for index in missing:
            if self._runs and self._runs[-1].end == index:
                self._runs[-1].end += 1
            else:
                self._runs.append(Span(index, index + 1))

    def take(self, streams: int) -> Span | None:
        """Some for one request, fewer towards the end so that all streams finish together."""
        if not self._runs:
            return None
        left = sum(map(len, self._runs))
        return self._take(max(_LEAST, min(_MOST, left // (2 * streams))))

    def take_first(self, most: int) -> Span:
        """So many chunks at the start of the file, if that is among them; else an empty span."""
        if self._runs and self._runs[0].first == 0:
            return self._take(most)
        return Span(0, 0)

    def _take(self, most: int) -> Span:
        run = self._runs[0]
        taken = Span(run.first, min(run.first + most, run.end))
        run.first = taken.end
        if not run:
            del self._runs[0]
        return taken
