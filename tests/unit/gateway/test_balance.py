from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tracklayer.gateway.balance import Balance

WEIGHTS = st.dictionaries(st.integers(0, 50), st.integers(0, 1000), min_size=1, max_size=6).filter(
    lambda weights: any(weights.values())
)


@given(WEIGHTS, st.integers(0, 2000))
def test_after_any_number_of_turns_each_has_its_share(weights: dict[int, int], turns: int) -> None:
    balance = Balance(weights)
    had = Counter(balance.next() for _ in range(turns))
    for version, weight in weights.items():
        assert abs(had[version] - turns * weight / sum(weights.values())) < len(weights)
        assert weight or not had[version]


def test_turns_are_spread_out() -> None:
    balance = Balance({1: 5, 2: 1, 3: 1})
    assert [balance.next() for _ in range(7)] == [1, 1, 2, 1, 3, 1, 1]


def test_changes_favour_nobody() -> None:
    chance = random.Random(1)
    for again in ({1: 9, 2: 1}, {1: 90, 2: 10}):
        balance = None
        had: Counter[int] = Counter()
        for _ in range(2000):
            balance = Balance(again, balance)
            had.update(balance.next() for _ in range(chance.randint(0, 9)))
        assert abs(had[2] / sum(had.values()) - 0.1) < 0.001


def test_a_share_that_changes_is_exact_in_each_phase() -> None:
    balance = None
    for weights in ({1: 9, 2: 1}, {1: 1, 2: 1}, {1: 1, 2: 3}, {2: 1}, {2: 99, 3: 1}):
        balance = Balance(weights, balance)
        had = Counter(balance.next() for _ in range(1001))
        for version, weight in weights.items():
            assert abs(had[version] - 1001 * weight / sum(weights.values())) <= 2
