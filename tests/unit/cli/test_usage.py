from __future__ import annotations

import json
import time

import pytest

from tracklayer.gateway import usage


@pytest.fixture
def counted(own_home):
    """What two callers used, now and thirty hours ago."""
    file = own_home / "gateway" / "usage.db"
    with usage._opened(file, write=True) as database:
        database.execute(usage._SCHEMA)
    hour = int(time.time()) // 3600
    usage._add(
        file,
        [
            (hour, "alice", "digits", 3, 10, 1, 1000, 5000, 0.5),
            (hour - 30, "alice", "digits", 3, 5, 0, 10, 20, 0.25),
            (hour, "bob", "other", 1, 2, 0, 2_000_000, 1, 70.0),
        ],
    )


def test_sums_for_a_person(call, counted):
    code, out, _ = call("usage")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["caller", "project", "version", "requests", "errors", "in", "out", "time"]
    assert rows[1][:5] == ["alice", "digits", "3", "15", "1"]
    assert rows[2][:7] == ["bob", "other", "1", "2", "0", "2.0", "MB"]
    assert call("usage", "--project", "nobody")[1] == "Nobody has asked for anything.\n"


def test_hours_for_a_program(call, counted):
    def rows(*options):
        return json.loads(call("usage", "--json", *options)[1])["usage"]

    assert [(row["caller"], row["requests"]) for row in rows()] == [
        ("alice", 5),
        ("alice", 10),
        ("bob", 2),
    ]
    assert [row["requests"] for row in rows("--since", "2h")] == [10, 2]
    assert [row["requests"] for row in rows("--project", "digits", "--since", "3d")] == [5, 10]
    assert [row["requests"] for row in rows("--caller", "bob")] == [2]
    assert rows("--since", "2100-01-01") == []
    assert rows()[0]["hour"].endswith(":00:00+00:00")


def test_no_usage_yet_and_no_time(call, own_home):
    assert call("usage")[1] == "Nobody has asked for anything.\n"
    code, _, err = call("usage", "--since", "soon")
    assert (code, "2026-01-31" in err) == (13, True)
    file = own_home / "gateway" / "usage.db"
    file.parent.mkdir(parents=True)
    file.write_text("this is no database, and longer than a header of one would be" * 20)
    code, _, err = call("usage")
    assert (code, "usage.db cannot be used" in err) == (13, True)
