"""Questions to a hub that is slow, busy, or leads elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Limits
from tracklayer.sources.api import Api

if TYPE_CHECKING:
    from tests.conftest import Hub

QUICK = Limits(stall=0.3, tries=2, backoff=0.01)
SECRET = {"Authorization": "Bearer of a test"}


def test_a_hub_that_does_not_answer_is_given_up(hub: Hub) -> None:
    hub.knobs(latency=5)
    said: list[str] = []
    with (
        Api(hub.url, SECRET, said.append, QUICK) as api,
        pytest.raises(SourceError, match=r"/api/models/a/b gave no answer \(try 2\): timed"),
    ):
        api.ask("GET", "/api/models/a/b?secret=1")
    assert len(said) == 1
    assert "secret" not in said[0]


def test_nobody_listens(free_ports: Callable[[int], list[int]]) -> None:
    with (
        Api(f"http://127.0.0.1:{free_ports(1)[0]}", SECRET, print, QUICK) as api,
        pytest.raises(SourceError, match="Connection refused"),
    ):
        api.ask("POST", "/x", {})


def test_a_redirect_to_another_server_is_an_answer_and_not_followed(hub: Hub) -> None:
    model = "/lab/twins/resolve/main/model.safetensors"
    with Api(hub.url, SECRET, print, QUICK) as api:
        answer = api.ask("GET", model)
        assert answer.status_code == 302
        with pytest.raises(SourceError, match="not followed"):
            api.ask("GET", str(answer.headers["Location"]))
    assert hub.asked() == [model]


def test_a_hub_of_this_machine_is_not_asked_by_a_proxy(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, free_ports: Callable[[int], list[int]]
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Api(hub.url, SECRET, print, QUICK) as api:
        assert api.ask("GET", "/api/models/lab/twins").is_success


def test_a_redirect_in_a_circle_ends(hub: Hub) -> None:
    folder = hub.root / "huggingface" / "models" / "circle"
    folder.mkdir()
    (folder / "moved").write_text("circle")
    with (
        Api(hub.url, SECRET, print, QUICK) as api,
        pytest.raises(SourceError, match="redirects more than 5 times"),
    ):
        api.ask("GET", "/api/models/circle")
    assert len(hub.log()) == 6
