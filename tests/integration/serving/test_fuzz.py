"""Malformed requests by all protocols; ``python -m bench.fuzz --count 100000`` is the long run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.fuzz import fault_of, served
from bench.malformed import Malformed, malformed

REPOSITORY = Path(__file__).parents[3]
REFUSED = Malformed(what="x", path="/invocations", body=b"")
PERHAPS = Malformed(what="x", path="/invocations", body=b"", refused=False)
CALL = Malformed(what="x", path=None, body=b"")


def test_thousands_of_malformed_requests_are_refused_with_a_message() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.fuzz", "--count", "6000", "--seed", "11"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert found["count"] == 6000
    assert len(found["kinds"]) > 25
    assert found["statuses"]["400"] > 5000


FIELD = re.compile(
    r"(?:^|not valid JSON at )"
    r"(?:(?:inputs|outputs)(?:\b|\[\d\])|id\b|parameters|model_name|numbers|extra|the request: )"
)


def test_the_message_names_the_field() -> None:
    """Where it is one field that is wrong, and not the text as a whole."""
    kinds: set[str] = set()
    unnamed: list[tuple[str, str]] = []
    with served() as (_, ask):
        for request in (malformed(12, number) for number in range(2500)):
            if not request.what.startswith(("field", "no number", "bytes value", "bytes size")):
                continue
            status, answer = ask(request)
            message = json.loads(answer)["error"]
            kinds.add(request.what)
            if status != 400 or not FIELD.search(message):
                unnamed.append((request.what, message))
    assert unnamed == []
    assert len(kinds) >= 11, kinds


@pytest.mark.parametrize(
    ("request_", "status", "answer", "fault"),
    [
        (REFUSED, 400, '{"error": "inputs must be an array"}', None),
        (CALL, 400, "inputs must be an array", None),
        (PERHAPS, 200, "{}", None),
        (REFUSED, 200, "{}", "it was answered"),
        (REFUSED, 500, '{"error": "the server failed on this request"}', "status 500"),
        (CALL, 500, "the server failed on this request", "status 500"),
        (PERHAPS, 400, "nothing to read", "no message"),
        (REFUSED, 400, '{"detail": "inputs must be an array"}', "no message"),
        (REFUSED, 400, '{"error": "no"}', "no message that a person reads"),
        (REFUSED, 400, json.dumps({"error": "x" * 9000}), "no message that a person reads"),
        (REFUSED, 400, '{"error": "Traceback (most recent call last)"}', "a trace"),
    ],
)
def test_what_counts_as_a_fault(
    request_: Malformed, status: int, answer: str, fault: str | None
) -> None:
    found = fault_of(request_, status, answer)
    assert found is None if fault is None else (found or "").startswith(fault)


def test_the_same_seed_makes_the_same_requests() -> None:
    first = [malformed(3, number) for number in range(300)]
    assert [malformed(3, number) for number in range(300)] == first
    assert [malformed(4, number) for number in range(300)] != first
