"""What Prometheus is told: requests, how long they took, who asked, what is in flight.

Format: Prometheus text exposition 0.0.4. A request costs a lookup and two additions here; the text
is put together when it is asked for.
"""

from __future__ import annotations

import re
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper bounds of the latency histogram."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper bounds of the histogram of batches, in requests."""

CALLERS = 200
"""Callers that get a label of their own; all later ones share ``other``."""

_CALLER = re.compile(rb"[\w.@-]{1,64}", re.ASCII)
_OTHER = "other"

Labels = dict[str, str]


class Histogram:
    """Counts below bounds, and their sum. One thread at a time may observe."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, name: str, labels: Labels) -> Iterator[str]:
        """The lines of this histogram."""
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield _sample(f"{name}_bucket", labels | {"le": bound}, total)
        yield _sample(f"{name}_sum", labels, self._sum)
        yield _sample(f"{name}_count", labels, total)


class Series:
    """The requests of one path."""

    __slots__ = ("_callers", "counts", "labels", "seconds")

    def __init__(self, labels: Labels, callers: dict[bytes, str]) -> None:
        self.labels = labels
        self.counts: dict[tuple[int, str], int] = {}
        self.seconds = Histogram(SECONDS)
        self._callers = callers

    def observe(self, status: int, caller: bytes | None, seconds: float) -> None:
        """Count one request, answered with ``status`` after so many seconds."""
        name = "" if caller is None else self._callers.get(caller) or self._new(caller)
        key = (status, name)
        self.counts[key] = self.counts.get(key, 0) + 1
        self.seconds.observe(seconds)

    def _new(self, caller: bytes) -> str:
        if len(self._callers) >= CALLERS or not _CALLER.fullmatch(caller):
            return _OTHER
        name = self._callers[caller] = caller.decode()
        return name


class Metrics:
    """All series of a server."""

    def __init__(self) -> None:
        self._series: list[Series] = []
        self._callers: dict[bytes, str] = {}
        self._batches: list[tuple[Labels, Histogram]] = []

    def series(self, model: str, version: str, protocol: str, route: str) -> Series:
        """A new one."""
        labels = {"model": model, "version": version, "protocol": protocol, "route": route}
        series = Series(labels, self._callers)
        self._series.append(series)
        return series

    def batches(self, model: str, version: str, sizes: Histogram) -> None:
        """Tell of the batches of a model too."""
        self._batches.append(({"model": model, "version": version}, sizes))

    def page(self, in_flight: int) -> bytes:
        """The text."""
        seen = [series for series in self._series if series.counts]
        lines = [
            *_family("tracklayer_requests_total", "counter", "Requests by HTTP status and caller."),
            *(
                _sample("tracklayer_requests_total", labels, count)
                for series in seen
                for (status, caller), count in series.counts.items()
                for labels in [series.labels | {"code": str(status), "caller": caller}]
            ),
            *_histograms(
                "tracklayer_request_seconds",
                "Seconds from the first byte of a request to its answer.",
                ((series.labels, series.seconds) for series in seen),
            ),
            *_histograms("tracklayer_batch_requests", "Requests run as one.", self._batches),
            *_family("tracklayer_requests_in_flight", "gauge", "Inferences read or worked on."),
            _sample("tracklayer_requests_in_flight", {}, in_flight),
            *_process(),
        ]
        return "\n".join([*lines, ""]).encode()


def _process() -> Iterator[str]:
    """What Prometheus's own clients tell of a process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    for name, kind, about, value in (
        ("cpu_seconds_total", "counter", "CPU time.", usage.ru_utime + usage.ru_stime),
        ("resident_memory_bytes", "gauge", "Resident memory.", pages * resource.getpagesize()),
        (
            "open_fds",
            "gauge",
            "Open file descriptors.",
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
        ),
        ("start_time_seconds", "gauge", "Start, seconds since 1970.", _STARTED),
    ):
        yield from _family(f"process_{name}", kind, about)
        yield _sample(f"process_{name}", {}, value)


def _histograms(
    name: str, about: str, histograms: Iterable[tuple[Labels, Histogram]]
) -> Iterator[str]:
    yield from _family(name, "histogram", about)
    for labels, histogram in histograms:
        yield from histogram.samples(name, labels)


def _family(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, value: float) -> str:
    if not labels:
        return f"{name} {value}"
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


_STARTED = time.time()
