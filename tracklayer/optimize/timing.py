"""Who is faster: all in turns, and the difference beside the noise."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Pass = Callable[[], list[float]]
"""Answers every request at least once; the seconds of each answer."""

ROUNDS = 20
LEAST = 9
"""Rounds that are needed to say anything, also when they take longer than the time for it."""
SECONDS = 60.0

_GAIN = 0.02
"""What a candidate has to gain at least, noise aside, for the model to be served another way."""


@dataclass(frozen=True)
class Timing:
    """One candidate's rounds.

    :param rounds: mean seconds of an answer, one number a round.
    :param answers: seconds of every answer.
    """

    rounds: Sequence[float]
    answers: Sequence[float]

    @property
    def median(self) -> float:
        """Seconds of an answer."""
        return statistics.median(self.answers)

    @property
    def p95(self) -> float:
        """Seconds within which 95 of 100 answers came."""
        ordered = sorted(self.answers)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]


def interleaved(passes: Mapping[str, Pass], *, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Time all in turns, so that whatever else the machine does meets each alike.

    The first round is a warm-up and does not count; each begins with another candidate.
    """
    names = list(passes)
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    begun = time.monotonic()
    for number in range(rounds + 1):
        if number > LEAST and time.monotonic() - begun > SECONDS:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken = passes[name]()
            if number:
                found[name][0].append(statistics.fmean(taken))
                found[name][1].extend(taken)
    return {name: Timing(*lists) for name, lists in found.items()}


def speedup(timing: Timing, base: Timing) -> float:
    """How many times as fast as another it is: the median over the rounds."""
    return statistics.median(_ratios(timing, base))


def is_faster(timing: Timing, base: Timing) -> bool:
    """Is it faster than another by more than the noise?

    The lower end of the 95% confidence interval of the median ratio says so: the order statistic
    at ``n / 2 - 0.98 * sqrt(n)`` (Conover, Practical Nonparametric Statistics, 3.2).
    """
    ratios = sorted(_ratios(timing, base))
    count = len(ratios)
    lower = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)) - 1)
    return ratios[lower] > 1 + _GAIN


def _ratios(timing: Timing, base: Timing) -> list[float]:
    return [theirs / own for own, theirs in zip(timing.rounds, base.rounds, strict=True)]
