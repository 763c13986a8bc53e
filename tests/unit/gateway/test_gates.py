from __future__ import annotations

import pytest

from tracklayer.gateway.gates import describe, judge, surely_above
from tracklayer.gateway.stats import VersionStats
from tracklayer.spec import Gates


def stats(
    fast: int = 0,
    slow: int = 0,
    failed: int = 0,
    wrong: int = 0,
    *,
    ms: float = 2,
    slow_ms: float = 100,
):
    """Requests that took so long; the failed ones as long as the fast ones."""
    found = VersionStats()
    for count, status, seconds in (
        (fast, 200, ms / 1000),
        (slow, 200, slow_ms / 1000),
        (failed, 500, ms / 1000),
        (wrong, 400, ms / 1000),
    ):
        for _ in range(count):
            found.add(status, seconds)
    return found


@pytest.mark.parametrize(
    ("count", "total", "share", "sure"),
    [
        (0, 0, 0.01, False),
        (0, 1000, 0.0, False),
        (1, 100, 0.01, False),
        (1, 20, 0.01, False),
        (2, 20, 0.01, True),
        (1, 2, 0.01, True),
        (1, 1, 0.5, False),
        (10, 1000, 0.01, False),
        (20, 1000, 0.01, True),
        (100, 100, 0.5, True),
        (100, 100, 1.0, False),
    ],
)
def test_how_sure_a_share_is(count: int, total: int, share: float, sure: bool) -> None:
    assert surely_above(count, total, share) is sure


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (stats(), stats(), None),
        (stats(1000), stats(9000), None),
        (stats(95, failed=5), stats(900), "5 of 100 requests failed (5.0%); allowed are 1.0%"),
        # No worse than the other one, which fails as many.
        (stats(95, failed=5), stats(950, failed=50), None),
        (stats(70, failed=30), stats(950, failed=50), "30 of 100 requests failed (30.0%); allowed"),
        # As bad as the other one, and still nothing to let loose.
        (stats(failed=100), stats(failed=900), "100 of 100 requests failed, more than half"),
        # It refuses what the other one takes; or both refuse what a caller does wrong.
        (stats(95, wrong=5), stats(900), "5 of 100 requests failed or were refused (5.0%)"),
        (stats(30, wrong=70), stats(300, wrong=700), None),
        # What callers did wrong with the old one is no licence to fail.
        (stats(70, failed=30), stats(100, wrong=900), "30 of 100 requests failed (30.0%)"),
        (stats(failed=5), stats(), "5 of 5 requests failed"),
        (stats(0, 200), stats(900), "the 95th percentile of its answers took"),
        (stats(900, 100), stats(9000), "that of the version which answers"),
        (stats(990, 10), stats(9000), None),
        # Slower by a factor, and by less than anybody notices.
        (stats(200, ms=5), stats(900, ms=1), None),
        # Nothing to compare with.
        (stats(0, 200), stats(19), None),
    ],
)
def test_a_version_is_judged(new: VersionStats, old: VersionStats, said: str | None) -> None:
    reason = judge(new, old, Gates(), final=False)
    assert reason is None if said is None else reason and said in reason


def test_the_first_requests_may_be_slow() -> None:
    few = stats(10, 40)
    assert judge(few, stats(900), Gates(), final=False) is None
    assert judge(few, stats(900), Gates(), final=True)
    assert judge(stats(0, 19), stats(900), Gates(), final=True) is None


def test_what_the_spec_allows() -> None:
    assert judge(stats(70, failed=30), stats(900), Gates(error_rate=0.3), final=True) is None
    assert judge(stats(0, 200), stats(900), Gates(latency=100), final=True) is None
    assert judge(stats(0, 200, slow_ms=30), stats(900, ms=10), Gates(latency=2), final=True)


def test_the_line_of_a_log() -> None:
    assert describe(stats()) == "0 requests, 0 failed"
    assert describe(stats(99, failed=1)).startswith("100 requests, 1 failed, p95 1.98 ms")
    assert describe(stats(97, failed=1, wrong=2)).startswith("100 requests, 1 failed, 2 refused, ")
