from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tracklayer.access import Keys
from tracklayer.errors import PlatformError
from tracklayer.serving.app import Application
from tracklayer.serving.guard import Guard
from tracklayer.serving.http import Service

INFER = "/v2/models/m/infer"
Use = Callable[..., None]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    made = Keys(tmp_path / "keys.json")
    made.create("first")
    return made


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **more}


def test_nothing_is_told_without_a_key(use: Use, linear: Path, keys: Keys) -> None:
    async def test(client: httpx.AsyncClient, application: Application, _: Service) -> None:
        for path in (
            INFER,
            "/v2",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/no",
            "/v2/models/x/infer",
        ):
            for answer in (await client.get(path), await client.post(path, content=b"{")):
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert "Authorization: Bearer <key>" in answer.json()["error"]
                assert "'m'" not in answer.text
        probes = ("/v2/health/live", "/v2/health/ready", "/ping", "/health")
        for path in (*probes, "/ping?x=1", "/p%69ng", "/v2/health/ready?"):
            assert (await client.get(path)).status_code == 200
        assert application.in_flight == 0

    use(linear, test, guard=Guard(keys.file))


def test_a_valid_key_is_let_in_and_counted(use: Use, linear: Path, keys: Keys) -> None:
    _, mine = keys.create("mine", projects=["m"])
    _, others = keys.create("others", projects=["another"])
    _, old = keys.create("old", lifetime=timedelta(seconds=-1))

    async def test(client: httpx.AsyncClient, *_: object) -> None:
        for headers in (
            bearer(mine),
            {"X-API-Key": mine},
            bearer(mine, **{"X-Tracklayer-Caller": "boss"}),
        ):
            answer = await client.post(INFER, content=b"{", headers=headers)
            assert answer.status_code == 400
        assert (await client.get("/v2/models/no", headers=bearer(mine))).status_code == 404
        refused = await client.post(INFER, content=b"{", headers=bearer(others))
        assert (refused.status_code, refused.json()) == (403, {"error": "this key is not for m"})
        for wrong in (old, mine[:-1], "tlk_"):
            refused = await client.post(INFER, content=b"{", headers=bearer(wrong))
            assert refused.status_code == 401
            assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        page = (await client.get("/metrics", headers=bearer(mine))).text
        (line,) = (line for line in page.splitlines() if 'code="400"' in line)
        assert 'caller="mine"' in line
        assert line.endswith(" 3")
        assert "boss" not in page
        keys.revoke("mine")
        refused = await client.post(INFER, content=b"{", headers=bearer(mine))
        assert refused.status_code == 401

    use(linear, test, guard=Guard(keys.file))


def test_a_rate_is_held(use: Use, linear: Path, keys: Keys) -> None:
    _, slow = keys.create("slow", rate=0.01, burst=2)

    async def test(client: httpx.AsyncClient, *_: object) -> None:
        codes = [
            (await client.post(INFER, content=b"{", headers=bearer(slow))).status_code
            for _ in range(2)
        ]
        assert codes == [400, 400]
        refused = await client.post(INFER, content=b"{", headers=bearer(slow))
        assert refused.status_code == 429
        assert 90 < int(refused.headers["retry-after"]) <= 100

    use(linear, test, guard=Guard(keys.file))


def test_a_file_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with pytest.raises(PlatformError, match="there are no keys at") as caught:
        Guard(file)
    assert "tracklayer keys create" in str(caught.value)
    file.write_text("{")
    with pytest.raises(PlatformError, match="are damaged"):
        Guard(file)
