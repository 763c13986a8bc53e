"""What became of the requests, by project and version, since the gateway started."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import field

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

BOUNDS: tuple[float, ...] = tuple(0.00025 * 2 ** (step / 4) for step in range(76))
"""Upper ends of the latency buckets in seconds: 0.25 ms to 110 s, each 19% above the one before.
The last bucket, beyond all of them, has no end."""


_CLASSES = ("broken", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx")


@dataclass(slots=True, config={"extra": "forbid", "strict": True})
class VersionStats:
    """The counters of one version; all of them only grow.

    :param began: when they were at 0, in seconds since 1970.
    :param requests: that were given to its servers.
    :param errors: of these, answered with 5xx, refused, or not answered whole.
    :param client_errors: of these, answered with 4xx.
    :param seconds: sum of the times to answer: from the whole request to the whole answer.
    :param codes: how many were answered with which class of status; ``broken``: not whole.
    :param latency: how many took so long, by bucket: one for each of :data:`BOUNDS` and one more.
    """

    began: float = field(default_factory=time.time, compare=False)
    requests: int = 0
    errors: int = 0
    client_errors: int = 0
    seconds: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, status: int, seconds: float) -> None:
        """Count one request. ``status`` 0: no whole answer."""
        self.requests += 1
        if status >= 500 or status == 0:
            self.errors += 1
        elif status >= 400:
            self.client_errors += 1
        code = _CLASSES[status // 100]
        self.codes[code] = self.codes.get(code, 0) + 1
        self.seconds += seconds
        self.latency[bisect_left(BOUNDS, seconds)] += 1

    def since(self, earlier: VersionStats) -> VersionStats:
        """What was counted after ``earlier``, which is a copy of an earlier state; all of it, if
        the gateway was started anew since."""
        if earlier.began != self.began:
            return self
        return VersionStats(
            began=self.began,
            requests=self.requests - earlier.requests,
            errors=self.errors - earlier.errors,
            client_errors=self.client_errors - earlier.client_errors,
            seconds=self.seconds - earlier.seconds,
            codes={code: count - earlier.codes.get(code, 0) for code, count in self.codes.items()},
            latency=[a - b for a, b in zip(self.latency, earlier.latency, strict=True)],
        )

    def quantile(self, q: float) -> float:
        """The time in seconds within which the share ``q`` of the requests was answered.

        Interpolated within its bucket, so right to 19%; 0.0 if nothing was counted.
        """
        rank = q * sum(self.latency)
        below = 0
        for index, count in enumerate(self.latency):
            if count and below + count >= rank:
                start = BOUNDS[index - 1] if index else 0.0
                end = BOUNDS[min(index, len(BOUNDS) - 1)]
                return start + (end - start) * (rank - below) / count
            below += count
        return 0.0


STATS: TypeAdapter[dict[int, VersionStats]] = TypeAdapter(dict[int, VersionStats])
