"""Lines for people, and what counts."""

from __future__ import annotations

import time

import pytest

from tracklayer.sources import Transfer
from tracklayer.sources.progress import Meter, amount, duration


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (1_234_567, "1.2 MB"),
        (2_100_000_000, "2.1 GB"),
        (5e12, "5000.0 GB"),
    ],
)
def test_amounts(size: float, text: str) -> None:
    assert amount(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (40.4, "40 s"),
        (89, "89 s"),
        (150, "2 min"),
        (3601, "60 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    said: list[str] = []
    seen: list[Transfer] = []
    meter = Meter("hf://x/y", said.append, seen.append)
    meter.expect(2_100_000_000, files=12)
    meter.found(100_000_000)
    with meter.receiving() as count:
        for _ in range(16):
            moment[0] += 0.125
            count(60_000_000)
            meter.tick()
    meter.finished(2)
    assert len(said) == 2
    assert said[0] == "hf://x/y: 580.0 MB of 2.1 GB, 480.0 MB/s, 3 s left, file 1 of 12"
    assert seen[-1].done == 1_060_000_000
    assert seen[-1].rate == pytest.approx(480e6)
    assert len(seen) == 16
    meter.say("something else")
    assert len(said) == 2
    meter.tick()
    assert said[-1] == "something else"
    meter.end()
    assert said[-1] == "hf://x/y: 1.1 GB in 2 files, 960.0 MB fetched in 2.0 s, 480.0 MB/s"


def test_what_was_in_vain_does_not_count() -> None:
    meter = Meter("x", lambda _line: None)
    meter.expect(10)
    with meter.receiving() as count:
        count(4)

    def fail() -> None:
        with meter.receiving() as count:
            count(5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert meter.now()[:2] == (4, 10)
