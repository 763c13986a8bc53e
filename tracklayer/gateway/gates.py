"""Whether a new version is as good as the one that answers, from what became of its requests.

Both gates ask the same: is a share (of failed, of slow requests) above what is allowed, or may it
be chance? They say so only when the lower end of Wilson's score interval (E. B. Wilson, 1927,
one-sided, 99 %) is above it: two failures of twenty end a rollout, one of a hundred does not.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from tracklayer.gateway.stats import BOUNDS, VersionStats

if TYPE_CHECKING:
    from tracklayer.spec import Gates

ENOUGH = 100
"""Requests that a version must have answered before its latency is judged ahead of time: the first
ones are slower than the rest."""

_COMPARABLE = 20
"""Requests that are the least for a percentile: below it nothing is said about latency."""

_HALF = 0.5
"""A version that fails every second request is never good, whatever the other one does."""

_NOTICED = 0.005
"""Seconds. A difference below is the machine's, not the model's."""

_Z = 2.326  # of the normal distribution, 99 %
_PERCENTILE = 0.95


def judge(new: VersionStats, old: VersionStats, gates: Gates, *, final: bool) -> str | None:
    """Why the new version must not go on; None if nothing speaks against it.

    :param new: what became of its requests.
    :param old: of those of the version that answers, in the same time.
    :param final: no more requests are waited for.
    """
    return _failures(new, old, gates) or _slowness(new, old, gates, final=final)


def describe(stats: VersionStats) -> str:
    """A line of the log: ``182 requests, 0 failed, p95 12 ms``; refused are those with 4xx."""
    said = f"{stats.requests} requests, {stats.errors} failed"
    said += f", {stats.client_errors} refused" if stats.client_errors else ""
    return f"{said}, p95 {_ms(stats.quantile(_PERCENTILE))}" if stats.requests else said


def surely_above(count: int, total: int, share: float) -> bool:
    """Is ``count`` of ``total`` more than ``share`` would give by chance?"""
    if total == 0 or count / total <= share:
        return False
    seen, spread = count / total, _Z**2 / total
    centre = seen + spread / 2
    width = _Z * sqrt((seen * (1 - seen) + spread / 4) / total)
    return (centre - width) / (1 + spread) > share


def _failures(new: VersionStats, old: VersionStats, gates: Gates) -> str | None:
    """Failures by themselves first: what the old version has refused, because a caller was wrong,
    is no reason to let the new one fail as often. Then with what was refused: the new version may
    want another input than the old one."""
    for kind, count in (("failed", _failed), ("failed or were refused", _refused)):
        usual = count(old) / old.requests if old.requests else 0.0
        allowed = usual + gates.error_rate
        if surely_above(count(new), new.requests, allowed):
            rate = count(new) / new.requests
            return (
                f"{count(new)} of {new.requests} requests {kind} ({rate:.1%}); "
                f"allowed are {allowed:.1%}"
            )
    if surely_above(new.errors, new.requests, _HALF):
        return f"{new.errors} of {new.requests} requests failed, more than half"
    return None


def _failed(stats: VersionStats) -> int:
    return stats.errors


def _refused(stats: VersionStats) -> int:
    return stats.errors + stats.client_errors


def _slowness(new: VersionStats, old: VersionStats, gates: Gates, *, final: bool) -> str | None:
    if old.requests < _COMPARABLE or new.requests < (_COMPARABLE if final else ENOUGH):
        return None
    usual = old.quantile(_PERCENTILE)
    allowed = max(usual * gates.latency, usual + _NOTICED)
    # Buckets that lie beyond it as a whole: a slow request is never taken for one by rounding.
    slow = sum(n for start, n in zip(BOUNDS, new.latency[1:], strict=True) if start >= allowed)
    if not surely_above(slow, new.requests, 1 - _PERCENTILE):
        return None
    return (
        f"the 95th percentile of its answers took {_ms(new.quantile(_PERCENTILE))}, that of the "
        f"version which answers {_ms(usual)}; allowed are {_ms(allowed)}"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
