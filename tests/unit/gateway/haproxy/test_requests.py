from __future__ import annotations

from collections import defaultdict

import pytest

from tracklayer.gateway.haproxy.requests import Requests
from tracklayer.gateway.stats import VersionStats
from tracklayer.gateway.usage import Who


class Counted:
    """What was counted of some lines."""

    def __init__(self, *pieces: bytes) -> None:
        self.used: list[tuple[Who, dict[str, float]]] = []
        self.marks: list[str] = []
        self.stats: dict[str, dict[int, VersionStats]] = defaultdict(dict)
        self.stats["digits"] = {3: VersionStats()}
        requests = Requests(self.stats, self, self.marks.append)
        for piece in pieces:
            requests.take(piece)

    def add(self, who: Who, **numbers: float) -> None:
        self.used.append((who, numbers))


def line(**changed: object) -> bytes:
    fields: dict[str, object] = {
        "status": 200,
        "method": "POST",
        "project": "digits",
        "version": 3,
        "caller": "-",
        "came": 5,
        "length": 70,
        "head": 87,
        "passed": 190,
        "begin": 1_000_000,
        "end": 1_002_000,
        "server": "s1",
        "ending": "--",
    }
    return " ".join(str(value) for value in (fields | changed).values()).encode() + b"\n"


def test_a_request_is_counted_for_its_caller_project_and_version() -> None:
    found = Counted(line(), line(caller="ann", status=500))
    assert found.used == [
        (
            ("anonymous", "digits", 3),
            {"failed": False, "received": 5, "sent": 70, "seconds": 0.002},
        ),
        (("ann", "digits", 3), {"failed": True, "received": 5, "sent": 70, "seconds": 0.002}),
    ]
    counted = found.stats["digits"][3]
    assert (counted.requests, counted.errors, counted.codes) == (2, 1, {"2xx": 1, "5xx": 1})


def test_lines_come_in_pieces_of_any_size() -> None:
    text = line() * 3 + b"mark 7\n" + line()
    for size in (1, 2, 7, 64):
        found = Counted(*(text[begin : begin + size] for begin in range(0, len(text), size)))
        assert (len(found.used), found.marks) == (4, ["7"])


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"status": -1, "ending": "SH"}, "broken"),
        ({"ending": "SD"}, "broken"),
        ({"ending": "CD"}, "4xx"),
        ({"status": 504, "ending": "sH"}, "5xx"),
    ],
)
def test_how_it_ended_is_what_counts(changed: dict[str, object], code: str) -> None:
    assert Counted(line(**changed)).stats["digits"][3].codes == {code: 1}


@pytest.mark.parametrize(
    ("changed", "sent"),
    [
        ({}, 70),
        ({"method": "HEAD"}, 0),
        ({"status": 304}, 0),
        ({"status": 204, "length": "-", "passed": 120}, 0),
        ({"length": "-"}, 70),
        ({"length": "-", "passed": 118}, 0),
        ({"length": 5000, "ending": "CD"}, 70),
        ({"length": 60, "ending": "CD"}, 60),
        ({"status": 502, "length": "-", "head": "-", "ending": "SH"}, 0),
    ],
)
def test_the_body_is_what_counts_as_far_as_it_came(changed: dict[str, object], sent: int) -> None:
    assert Counted(line(**changed)).used[0][1]["sent"] == sent


def test_what_our_own_proxy_answered_it_has_counted_itself() -> None:
    health = b"Server lane0/s1 is DOWN, reason: Layer4 connection problem, check duration: 0ms.\n"
    found = Counted(health, line(server="whole"), line(project="-", version="-", server="<NOSRV>"))
    assert found.used == []
    assert found.stats["digits"][3].requests == 0
