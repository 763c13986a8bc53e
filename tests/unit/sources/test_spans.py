"""Which chunks are asked for, and in how many at once."""

from __future__ import annotations

import pytest

from tracklayer.sources.spans import Spans


def taken(missing: list[int], streams: int) -> list[tuple[int, int]]:
    spans = Spans(missing)
    found = []
    while span := spans.take(streams):
        found.append((span.first, span.end))
    return found


def test_each_chunk_once_and_less_towards_the_end() -> None:
    found = taken(list(range(2048)), 8)
    assert [index for first, end in found for index in range(first, end)] == list(range(2048))
    sizes = [end - first for first, end in found]
    assert sizes[0] == 16
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-2] == 4


@pytest.mark.parametrize(
    ("missing", "found"),
    [
        ([], []),
        ([0], [(0, 1)]),
        ([0, 1, 5, 6, 7, 9], [(0, 2), (5, 8), (9, 10)]),
        ([3, 4, 5, 6, 7, 8], [(3, 7), (7, 9)]),
    ],
)
def test_holes(missing: list[int], found: list[tuple[int, int]]) -> None:
    assert taken(missing, 8) == found


def test_the_first_chunk_may_be_there() -> None:
    spans = Spans([0, 1, 2])
    first = spans.take_first(1)
    assert (first.first, first.end) == (0, 1)
    rest = spans.take(1)
    assert rest
    assert (rest.first, rest.end) == (1, 3)
    assert not Spans([4]).take_first(4)
    assert not Spans([]).take_first(4)
