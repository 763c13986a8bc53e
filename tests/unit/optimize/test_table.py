"""The table as a person reads it."""

from __future__ import annotations

from tracklayer.optimize.table import Row, text

ROWS = [
    Row("onnx-fp32", 266_180_000, 0.0, "cosine", 61.8, 63.0, 1.0, True, False, "a is faster", 4.0),
    Row("a", 69_000_000, 0.0018, "cosine", 15.8, 16.0, 3.9, True, True),
    Row("b", why="not available: no such thing"),
]


def test_columns_are_aligned_and_the_chosen_one_is_marked() -> None:
    lines = text(ROWS)
    assert lines[0].startswith("candidate")
    assert [line[0] for line in lines] == ["c", " ", "*", " "]
    assert lines[2].split() == ["*", "a", "69.00", "0.0018", "cosine", "15.8", "16", "3.90x", "yes"]
    assert lines[3].split(maxsplit=2)[:2] == ["b", "no"]
    assert lines[0].index("MB") + 2 == lines[1].index("266.18") + 6 == lines[2].index("69.00") + 5


def test_a_row_is_json() -> None:
    assert ROWS[1].document()["speedup"] == 3.9
    assert ROWS[2].document()["median_ms"] is None
