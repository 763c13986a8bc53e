from __future__ import annotations

import pytest

from tracklayer.sources.http import wait_asked_for


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "soon"}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api"; r=0; t=55'}, 55),
        ({"RateLimit": '"api";r=500;t=55'}, 0),  # some are left: that is not the reason
        ({"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}, 7),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert wait_asked_for(headers) == seconds
