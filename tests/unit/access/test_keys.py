from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from tracklayer.access.keys import PREFIX, Keys, digest
from tracklayer.errors import PlatformError


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "gateway" / "keys.json")


def test_a_key_is_random_and_only_its_digest_is_kept(keys: Keys) -> None:
    kept, secret = keys.create("alice", projects=["b", "a", "b"], lifetime=timedelta(days=1))
    _, other = keys.create("bob", rate=2.5)
    assert secret != other
    assert (secret[:4], len(secret)) == (PREFIX, 4 + 43)  # 256 bits in base64
    assert kept.digest == digest(secret.encode())
    assert kept.projects == ["a", "b"]
    assert kept.opens("a")
    assert not kept.opens("c")
    assert kept.expires is not None
    assert not kept.expired(kept.created.timestamp())
    assert kept.expired(kept.created.timestamp() + 86400)
    text = keys.file.read_text()
    assert secret not in text
    assert other not in text
    assert stat.S_IMODE(keys.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.file.parent.stat().st_mode) == 0o700
    first, second = keys.all()
    assert first == kept
    assert (second.projects, second.rate, second.burst) == ("*", 2.5, 2)


def test_a_caller_has_one_key(keys: Keys) -> None:
    keys.create("alice")
    with pytest.raises(PlatformError, match="has a key already") as caught:
        keys.create("alice")
    assert "keys revoke alice" in str(caught.value)
    keys.revoke("alice")
    with pytest.raises(PlatformError, match="'alice' has no key"):
        keys.revoke("alice")
    keys.create("alice")


@pytest.mark.parametrize(
    "name", ["", "Alice", "a b", "../x", "anonymous", "platform", "a" * 64, 'a"b']
)
def test_names_that_cannot_be(keys: Keys, name: str) -> None:
    with pytest.raises(PlatformError) as caught:
        keys.create(name)
    assert repr(name) in caught.value.message
    assert "pattern" not in caught.value.message
    assert keys.all() == []


def test_projects_and_rates_that_cannot_be(keys: Keys) -> None:
    with pytest.raises(PlatformError, match="'Digits' cannot be the name of a project"):
        keys.create("alice", projects=["digits", "Digits"])
    with pytest.raises(PlatformError, match="rate"):
        keys.create("alice", rate=float("inf"), burst=1)
    with pytest.raises(PlatformError, match="burst"):
        keys.create("alice", rate=1, burst=-1)
    assert keys.all() == []


def test_a_damaged_file_is_an_error_and_stays(keys: Keys) -> None:
    keys.file.parent.mkdir()
    for text in ("{", "[]", '{"keys": [{"name": "a"}]}'):
        keys.file.write_text(text)
        for act in (keys.all, lambda: keys.create("bob"), lambda: keys.revoke("bob")):
            with pytest.raises(PlatformError, match="are damaged"):
                act()
        assert keys.file.read_text() == text


def test_many_at_once_lose_nothing(keys: Keys) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: keys.create(f"c{number}"), range(24)))
    assert {key.name for key in keys.all()} == {f"c{number}" for number in range(24)}
    assert len(json.loads(keys.file.read_text())["keys"]) == 24
