from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tracklayer.errors import ServiceError
from tracklayer.gateway import GatewayClient
from tracklayer.gateway.endpoint import Endpoint, patiently
from tracklayer.gateway.progress import Journal
from tracklayer.gateway.releases import Releases
from tracklayer.gateway.servers import Servers
from tracklayer.tracking.ledger import Event, Ledger


@pytest.fixture
def place(tmp_path: Path) -> Endpoint:
    """An endpoint with a ledger, and without a gateway."""
    return Endpoint(
        "digits",
        gateway=GatewayClient(tmp_path / "none.sock"),
        servers=lambda: cast("Servers", None),
        releases=Releases(tmp_path / "releases"),
        journal=Journal(tmp_path / "rollouts", "digits"),
        ledger=Ledger(tmp_path / "ledger.jsonl"),
    )


@pytest.mark.parametrize(
    ("events", "past"),
    [
        ([], []),
        ([("deploy", 1), ("live", 1)], [1]),
        ([("live", 1), ("step", 2), ("live", 2)], [1, 2]),
        ([("live", 1), ("step", 2), ("promote", 2), ("live", 2)], [1, 2]),
        # What was gone back from is nothing to go back to.
        ([("live", 1), ("live", 2), ("rollback", 1)], [1]),
        ([("live", 1), ("live", 2), ("rollback", 1), ("live", 3)], [1, 3]),
        ([("live", 1), ("live", 2), ("live", 3), ("rollback", 1)], [1]),
        ([("live", 1), ("live", 2), ("rollback", 1), ("rollback", 2)], [1, 2]),
        # It had been given everything, and was taken back then.
        ([("live", 1), ("promote", 2), ("abort", 2)], [1]),
        ([("live", 1), ("step", 2), ("abort", 2)], [1]),
        ([("found", 4), ("live", 5)], [4, 5]),
        # The version that answers was deployed again, and could not be.
        ([("live", 1), ("deploy", 1), ("abort-of-live", 1)], [1]),
    ],
)
def test_which_versions_there_are_to_go_back_to(
    place: Endpoint, events: list[tuple[str, int]], past: list[int]
) -> None:
    for event, version in events:
        weights = {1: 1} if event == "abort" else {version: 1}
        known = cast("Event", event.partition("-of-")[0])
        place.ledger.append("digits", known, version, weights, actor="ann")
        place.ledger.append("other", "live", 9, {9: 1}, actor="ann")
    assert place.past() == past


def test_a_gateway_that_is_away_is_asked_again_and_a_refusal_is_not(monkeypatch: Any) -> None:
    monkeypatch.setattr("tracklayer.gateway.endpoint._BACK_WITHIN", 0.5)
    calls = []

    def away() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ServiceError("not there") from ConnectionError()
        return 7

    assert patiently(away) == 7
    calls.clear()

    def refuses() -> None:
        calls.append(1)
        raise ServiceError("refused")

    with pytest.raises(ServiceError, match="refused"):
        patiently(refuses)
    assert len(calls) == 1


def test_no_gateway(place: Endpoint) -> None:
    with pytest.raises(ServiceError, match="the gateway is not there"):
        place.live()
