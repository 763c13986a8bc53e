"""Exact shares: smooth weighted round robin."""

from __future__ import annotations

from collections.abc import Mapping


class Balance:
    """Whose turn it is, by weight. After any number of turns each has had its share, give or take
    one turn: nothing is left to chance.

    Each turn, all are credited their share; the one with the greatest credit has the turn and pays
    one for it (the algorithm of nginx, ``ngx_http_upstream_round_robin.c``).

    :param weights: version -> weight; one above 0 at least.
    :param before: whose credits go on, so that many changes do not favour the greatest share.
    :ivar shares: version -> share, the greatest first.
    """

    def __init__(self, weights: Mapping[int, int], before: Balance | None = None) -> None:
        total = sum(weights.values())
        earlier = before.credits if before else {}
        # Greatest first: the first turn is its.
        ordered = sorted((v for v, weight in weights.items() if weight), key=lambda v: -weights[v])
        self.shares = {version: weights[version] / total for version in ordered}
        self.credits: dict[int, float] = {version: earlier.get(version, 0.0) for version in ordered}
        self._only = ordered[0] if len(ordered) == 1 else None

    def next(self) -> int:
        """The version that has this turn."""
        if self._only is not None:
            return self._only
        held = self.credits
        best, most = -1, float("-inf")
        for version, share in self.shares.items():
            held[version] += share
            if held[version] > most:
                best, most = version, held[version]
        held[best] -= 1.0
        return best
