from __future__ import annotations

import pytest

from tracklayer.gateway.passage import Passage
from tracklayer.gateway.request import Request


def request(value: str, target: str = "/digits/x") -> Request:
    made = Request()
    made.target = target.encode()
    made.headers = [
        (b"host", b"Host", b"g"),
        (b"x-tracklayer-passage", b"X-Tracklayer-Passage", value.encode()),
    ]
    return made


def test_what_is_known_is_taken_out_of_the_request() -> None:
    made = request("10.0.0.1 https ann 4 2")
    assert Passage.of(made) == Passage("10.0.0.1", "https", "ann", 4, 2)
    assert made.headers == [(b"host", b"Host", b"g")]
    assert made.target == b"/digits/x"


def test_what_is_not_known_is_nothing() -> None:
    assert Passage.of(request("::1 http - - -")) == Passage("::1", "http", None, -1, 0)


@pytest.mark.parametrize("caller", ["ann", None])
def test_what_no_server_took_comes_as_it_was_sent_to_them(caller: str | None) -> None:
    made = Request()
    made.target = b"/v2/health/ready?x=1"
    fields = {"For": "::1", "Proto": "http", "Prefix": "/digits@3"}
    made.headers = [
        (f"x-forwarded-{name}".lower().encode(), b"", value.encode())
        for name, value in fields.items()
    ]
    if caller is not None:
        made.headers.append((b"x-tracklayer-caller", b"", caller.encode()))
    assert Passage.of(made) == Passage("::1", "http", caller, -1, 0)
    assert made.target == b"/digits@3/v2/health/ready?x=1"


def test_nobody_else_hands_anything_over() -> None:
    with pytest.raises(KeyError):
        Passage.of(Request())
