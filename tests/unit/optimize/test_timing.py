"""Who is faster, and whether that is noise."""

from __future__ import annotations

import itertools

import numpy as np

from tracklayer.optimize.timing import LEAST, Timing, interleaved, is_faster, speedup


def timing(rounds: list[float]) -> Timing:
    return Timing(rounds, rounds)


def noisy(level: float, spread: float, seed: int, count: int = 20) -> Timing:
    values = np.random.default_rng(seed).normal(level, spread, count)
    return timing(values.tolist())


def test_half_the_time_is_twice_as_fast() -> None:
    base, fast = noisy(2.0, 0.05, 1), noisy(1.0, 0.05, 2)
    assert 1.9 < speedup(fast, base) < 2.1
    assert is_faster(fast, base)
    assert not is_faster(base, fast)


def test_noise_is_not_faster() -> None:
    found = [is_faster(noisy(1, 0.1, seed), noisy(1, 0.1, seed + 1000)) for seed in range(200)]
    assert sum(found) <= 5


def test_what_gains_less_than_two_percent_is_not_worth_it() -> None:
    assert not is_faster(timing([0.99] * 20), timing([1.0] * 20))
    assert is_faster(timing([0.95] * 20), timing([1.0] * 20))


def test_a_slow_minute_of_the_machine_meets_both() -> None:
    slow = [1 + 4 * (round_ % 2) for round_ in range(20)]
    base, fast = timing([2.0 * s for s in slow]), timing([1.0 * s for s in slow])
    assert speedup(fast, base) == 2
    assert is_faster(fast, base)


def test_the_fewest_rounds_are_enough_to_say_it() -> None:
    assert is_faster(timing([1.0] * LEAST), timing([2.0] * LEAST))


def test_all_are_measured_in_turns_and_the_first_round_is_left_out() -> None:
    calls: list[str] = []
    clock = itertools.count()

    def one(name: str) -> list[float]:
        calls.append(name)
        return [float(next(clock)), float(next(clock))]

    found = interleaved({name: lambda name=name: one(name) for name in "abc"}, rounds=4)
    assert "".join(calls) == "abcbcacababcbca"
    assert all(len(timing.rounds) == 4 for timing in found.values())
    assert all(len(timing.answers) == 8 for timing in found.values())
    assert found["b"].rounds[0] == 6.5


def test_the_percentile_is_one_of_the_answers() -> None:
    found = Timing([1.0], [float(value) for value in range(1, 101)])
    assert found.p95 == 95
    assert found.median == 50.5
    assert Timing([1.0], [7.0]).p95 == 7
