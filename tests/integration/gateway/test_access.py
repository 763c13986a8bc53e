"""Keys: who is let in, how often, and that nobody else ever sees one."""

from __future__ import annotations

import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tracklayer.access import Keys
from tracklayer.gateway import Route


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "state" / "keys.json")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_opens_its_projects_until_it_is_revoked(
    gateway: Any, echo: Any, keys: Keys, tmp_path: Path
) -> None:
    gate, one = gateway("--access", "keys"), echo()
    gate.client.switch("digits", 1, [one.path])
    gate.client.switch("other", 1, [one.path])
    url = f"{gate.url}/digits/x"
    refused = httpx.get(url)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="tracklayer"'
    assert "Authorization: Bearer" in refused.json()["error"]
    _, key = keys.create("alice", projects=["digits"])
    for headers in (bearer(key), {"X-API-Key": key}, {"authorization": f"bearer  {key}"}):
        assert httpx.get(url, headers=headers).status_code == 200
    assert httpx.get(f"{gate.url}/other/x", headers=bearer(key)).status_code == 403
    wrong = [bearer(key[:-1]), bearer(key + "A"), {"X-API-Key": "tlk_"}]
    wrong += [{"Authorization": f"Basic {key}"}, {"X-API-Key": "é".encode("latin-1")}]
    for headers in wrong:
        assert httpx.get(url, headers=headers).status_code == 401, headers
    assert one.asked == 3
    keys.revoke("alice")
    deadline = time.monotonic() + 1
    while (answer := httpx.get(url, headers=bearer(key))).status_code == 200:
        assert time.monotonic() < deadline, "it still opens"
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert key not in (tmp_path / "state" / "keys.json").read_text()


def test_a_key_ends_when_it_expires(gateway: Any, echo: Any, keys: Keys) -> None:
    gate, one = gateway("--access", "keys"), echo()
    gate.client.switch("digits", 1, [one.path])
    _, key = keys.create("alice", lifetime=timedelta(seconds=1))
    assert httpx.get(f"{gate.url}/digits/x", headers=bearer(key)).status_code == 200
    time.sleep(1.1)
    answer = httpx.get(f"{gate.url}/digits/x", headers=bearer(key))
    assert (answer.status_code, "expired" in answer.json()["error"]) == (401, True)


def test_a_rate_is_held_and_the_burst_comes_back(gateway: Any, echo: Any, keys: Keys) -> None:
    gate, one = gateway("--access", "keys"), echo()
    gate.client.switch("digits", 1, [one.path])
    _, key = keys.create("alice", rate=2, burst=5)
    _, other = keys.create("bob")
    with httpx.Client(base_url=gate.url) as client:
        begin = time.monotonic()
        found = [client.post("/digits/x", headers=bearer(key), content=b"x") for _ in range(8)]
        assert [answer.status_code for answer in found] == [200] * 5 + [429] * 3
        assert found[-1].headers["retry-after"] == "1"
        assert "2 requests a second" in found[-1].json()["error"]
        assert client.get("/digits/x", headers=bearer(other)).status_code == 200
        # Another key that changes gives this one no new tokens.
        keys.revoke("bob")
        assert client.get("/digits/x", headers=bearer(key)).status_code == 429
        time.sleep(1.1)
        found = [client.get("/digits/x", headers=bearer(key)) for _ in range(4)]
        granted = [answer.status_code for answer in found].count(200)
        assert 2 <= granted <= 2 * (time.monotonic() - begin)


def test_the_backend_learns_the_caller_and_never_the_key(
    gateway: Any, echo: Any, keys: Keys
) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("open", 1, [one.path])
    gate.client.route("shut", Route.of(1, [one.path]).model_copy(update={"access": "keys"}))
    _, key = keys.create("alice")
    spoofed = {"X-Tracklayer-Caller": "root"}
    for project in ("open", "shut"):
        for headers in (bearer(key), {"X-API-Key": key}, {**bearer(key), "X-API-Key": key}):
            answer = httpx.get(f"{gate.url}/{project}/x", headers={**headers, **spoofed})
            sent = answer.json()["headers"]
            assert [value for name, value in sent if name == "x-tracklayer-caller"] == ["alice"]
            assert key not in answer.text
            assert not {"authorization", "x-api-key"} & {name for name, _ in sent}
    # What is no key of ours is the backend's business, where none is asked for.
    sent = dict(
        httpx.get(f"{gate.url}/open/x", headers={**bearer("x"), **spoofed}).json()["headers"]
    )
    assert sent["authorization"] == "Bearer x"
    assert "x-tracklayer-caller" not in sent
    # A key that is not valid is refused even there: its owner would be billed as nobody.
    assert httpx.get(f"{gate.url}/open/x", headers=bearer("tlk_x")).status_code == 401
    sent = httpx.get(f"{gate.url}/open/x", headers={"X-API-Key": "theirs"}).json()["headers"]
    assert "x-api-key" not in dict(sent)


def test_access_stays_as_it_was_when_a_version_takes_over(gateway: Any, echo: Any) -> None:
    gate, one = gateway(), echo()
    gate.client.route("digits", Route.of(1, [one.path]).model_copy(update={"access": "keys"}))
    gate.client.switch("digits", 2, [one.path])
    assert gate.client.routes()["digits"].access == "keys"
    assert httpx.get(f"{gate.url}/digits/x").status_code == 401
    assert httpx.get(f"{gate.url}/digits@2/x").status_code == 401
    assert httpx.get(f"{gate.url}/digits@77/x").status_code == 401
    gate.client.route("digits", Route.of(2, [one.path]).model_copy(update={"access": "open"}))
    assert httpx.get(f"{gate.url}/digits/x").status_code == 200


def test_who_has_no_key_learns_no_names(gateway: Any, echo: Any, keys: Keys) -> None:
    gate, one = gateway(), echo()
    gate.client.switch("open", 1, [one.path])
    gate.client.route("shut", Route.of(1, [one.path]).model_copy(update={"access": "keys"}))
    _, some = keys.create("alice", projects=["shut"])
    _, every = keys.create("bob")
    httpx.get(f"{gate.url}/shut/x", headers=bearer(some))

    def shown(**headers: str) -> tuple[list[str], str]:
        listed = httpx.get(gate.url, headers=headers).json()["projects"]
        return sorted(listed), httpx.get(f"{gate.url}/-/metrics", headers=headers).text

    names, metrics = shown()
    assert (names, "shut" in metrics, "alice" in metrics) == (["open"], False, False)
    names, metrics = shown(**bearer(some))
    assert (names, "shut" in metrics, "alice" in metrics) == (["open", "shut"], True, False)
    gate.client.stats("shut")  # whatever is over is counted now
    names, metrics = shown(**bearer(every))
    assert (names, "shut" in metrics) == (["open", "shut"], True)
    assert 'requests_total{caller="alice",project="shut"} 1' in metrics
    assert httpx.get(f"{gate.url}/nobody/x").status_code == 404
    gate.process.terminate()
    gate.process.wait()
    closed = gateway("--access", "keys")
    assert httpx.get(f"{closed.url}/-/health").status_code == 200
    assert httpx.get(closed.url).json() == {"projects": {}}
    for path in ("nobody/x", "open/x", "-/x"):
        assert httpx.get(f"{closed.url}/{path}").status_code == 401
    assert httpx.get(f"{closed.url}/nobody/x", headers=bearer(every)).status_code == 404


def test_the_platform_asks_without_a_key(gateway: Any, echo: Any) -> None:
    gate, one = gateway("--access", "keys"), echo()
    gate.client.switch("digits", 1, [one.path])
    with gate.client.http() as client:
        answer = client.post("/digits/x", content=b"12345")
        assert (answer.status_code, answer.json()["bytes"]) == (200, 5)
        assert "digits" in client.get("/").json()["projects"]
    assert ["x-forwarded-for", "unix"] in answer.json()["headers"]


def test_no_key_is_written_to_the_log(gateway: Any, echo: Any, keys: Keys) -> None:
    gate, one = gateway("--access", "keys"), echo()
    gate.client.switch("digits", 1, [one.path])
    _, key = keys.create("alice")
    httpx.get(f"{gate.url}/digits/x", headers=bearer(key))
    httpx.get(f"{gate.url}/digits/x?key={key}", headers=bearer(key + "x"))
    keys.file.write_text(f'{{"keys": [{{"name": "alice", "digest": "{key}"}}]}}')
    assert httpx.get(f"{gate.url}/digits/x", headers=bearer(key)).status_code == 200
    time.sleep(0.5)  # HAProxy does not look at the file itself
    gate.process.terminate()
    _, said = gate.process.communicate(timeout=10)
    assert "the keys stay as they were" in said
    assert key not in said


def test_damaged_keys_end_the_start(gateway: Any, spawn: Any, keys: Keys, tmp_path: Path) -> None:
    keys.file.parent.mkdir()
    keys.file.write_text("{")
    process: subprocess.Popen[str] = spawn(
        "tracklayer.gateway",
        *("--port", 0, "--admin", tmp_path / "admin.sock", "--routes", tmp_path / "routes.json"),
        *("--state", tmp_path / "state"),
    )
    _, said = process.communicate(timeout=20)
    assert (process.returncode, "keys.json are damaged" in said) == (13, True)
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key"])
@pytest.mark.parametrize("access", ["open", "keys"])
def test_a_key_beside_another_is_refused_and_no_server_gets_it(
    gateway: Any, echo: Any, keys: Keys, name: str, access: str
) -> None:
    gate, one = gateway("--access", access), echo()
    gate.client.switch("digits", 1, [one.path])
    _, key = keys.create("alice")
    carried = f"Bearer {key}" if name == "Authorization" else key
    for both in ([carried, "Basic eA=="], ["Basic eA==", carried]):
        answer = httpx.get(f"{gate.url}/digits/x", headers=[(name, value) for value in both])
        assert (answer.status_code, one.asked) == (400, 0)
        assert "one Authorization and one X-API-Key at most" in answer.json()["error"]
