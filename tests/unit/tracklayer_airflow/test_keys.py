"""The store's keys in an Airflow connection."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import Store
from tracklayer.store.seal import fingerprint
from tracklayer_airflow.keys import ConnectionKeys

OLD, NEW = os.urandom(32), os.urandom(32)


def text(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


@pytest.fixture(autouse=True)
def as_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own processes find connections without a child."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")


def keep(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_STORE_KEYS", f'{{"password": "{password}"}}')


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ConnectionKeys:
    keep(monkeypatch, text(OLD))
    return ConnectionKeys("store_keys", tmp_path)


def test_the_first_key_is_the_current_one(
    keys: ConnectionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys.current == (fingerprint(OLD), OLD)
    assert keys.ids == [fingerprint(OLD)]
    keep(monkeypatch, text(NEW, OLD))
    assert keys.get(fingerprint(NEW)) == NEW  # a key that another process already uses
    assert keys.current == (fingerprint(NEW), NEW)
    assert keys.get(fingerprint(OLD)) == OLD
    assert list(keys.ids) == [fingerprint(NEW), fingerprint(OLD)]


def test_a_key_that_is_gone(keys: ConnectionKeys) -> None:
    with pytest.raises(StoreError) as caught:
        keys.get(fingerprint(NEW))
    assert fingerprint(NEW) in caught.value.message
    assert "the Airflow connection store_keys" in caught.value.message
    assert fingerprint(OLD) in str(caught.value.hint)
    assert text(OLD) not in str(caught.value)


def test_what_is_no_key_is_not_shown(keys: ConnectionKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, "hunter2")
    with pytest.raises(StoreError, match="password of the Airflow connection store_keys") as caught:
        _ = keys.current
    assert "hunter2" not in str(caught.value)
    keep(monkeypatch, "")
    with pytest.raises(StoreError, match="has no key for the store in its password"):
        _ = keys.current


def test_a_connection_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"airflow connections add nobody --conn-type generic"):
        _ = ConnectionKeys("nobody", tmp_path).current
    with pytest.raises(StoreError, match="names no connection"):
        ConnectionKeys("", tmp_path)


def test_a_person_changes_the_keys(keys: ConnectionKeys) -> None:
    with pytest.raises(StoreError, match=r"by a person[\s\S]*put a new key first"):
        keys.new()
    keys.retire([fingerprint(OLD)])
    assert keys.get(fingerprint(OLD)) == OLD


def test_a_store_with_these_keys(keys: ConnectionKeys, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("something worth keeping")
    blob = Store(tmp_path / "store", keys).put_file(tmp_path / "plain")
    again = Store(tmp_path / "store", ConnectionKeys("store_keys", tmp_path))
    with again.open(blob) as stream:
        assert stream.read() == b"something worth keeping"
    for file in (tmp_path / "store").rglob("*"):
        assert not file.is_file() or b"something worth" not in file.read_bytes()
