from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import ServiceError
from tracklayer.gateway import GatewayClient


def test_a_gateway_that_is_not_there_is_said(tmp_path: Path) -> None:
    client = GatewayClient(tmp_path / "admin.sock")
    with pytest.raises(ServiceError, match="the gateway is not there") as caught:
        client.routes()
    assert "tracklayer up" in str(caught.value)


def test_nonsense_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    client = GatewayClient(tmp_path / "admin.sock")
    with pytest.raises(ServiceError, match="no project can be called 'Digits'"):
        client.switch("Digits", 1, [Path("/a")])
    with pytest.raises(ServiceError, match=r"no route for 'digits'.*at least 1"):
        client.switch("digits", 1, [])
    with pytest.raises(ServiceError, match="absolute path"):
        client.switch("digits", 1, [Path("a")])
    with pytest.raises(ServiceError, match=r"no project can be called '\.\./x'"):
        client.remove("../x")
