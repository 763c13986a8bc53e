from __future__ import annotations

import random

import pytest

from tracklayer.gateway.stats import BOUNDS, STATS, VersionStats


def test_what_is_counted_is_what_was_added() -> None:
    stats = VersionStats()
    for status in (200, 204, 301, 404, 429, 500, 503, 0, 499, 999):
        stats.add(status, 0.01)
    assert (stats.requests, stats.errors, stats.client_errors) == (10, 4, 3)
    assert stats.codes == {"2xx": 2, "3xx": 1, "4xx": 3, "5xx": 2, "broken": 1, "9xx": 1}
    assert stats.seconds == pytest.approx(0.1)
    assert sum(stats.latency) == 10


def test_two_versions_share_no_counter() -> None:
    one, two = VersionStats(), VersionStats()
    one.add(200, 0.01)
    assert (two.requests, sum(two.latency), two.codes) == (0, 0, {})


def test_the_difference_is_what_came_after() -> None:
    stats = VersionStats()
    for _ in range(5):
        stats.add(500, 0.02)
    before = STATS.validate_json(STATS.dump_json({3: stats}))[3]
    for _ in range(7):
        stats.add(200, 0.3)
    after = stats.since(before)
    assert (after.requests, after.errors, sum(after.latency)) == (7, 0, 7)
    assert after.codes == {"5xx": 0, "2xx": 7}
    assert 0.25 < after.quantile(0.5) < 0.36
    assert before.requests == 5


def test_quantiles_are_right_to_a_bucket() -> None:
    chance = random.Random(2)
    times = sorted(chance.lognormvariate(-4, 1) for _ in range(5000))
    stats = VersionStats()
    for seconds in times:
        stats.add(200, seconds)
    for q in (0.01, 0.5, 0.9, 0.99):
        assert stats.quantile(q) == pytest.approx(times[int(q * len(times))], rel=0.2)
    assert VersionStats().quantile(0.5) == 0.0
    stats = VersionStats()
    stats.add(200, 1e6)
    assert stats.quantile(1.0) == BOUNDS[-1]
    stats.add(200, 0.0)
    assert stats.quantile(0.0) <= BOUNDS[0]


def test_counters_that_began_anew_are_counted_whole() -> None:
    """Of a gateway that was started again, whatever it had counted before."""
    before = VersionStats()
    for _ in range(5):
        before.add(400, 0.02)
    anew = VersionStats(began=before.began + 1)
    for _ in range(7):
        anew.add(500, 0.3)
    assert anew.since(before) == anew
