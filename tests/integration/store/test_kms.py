"""Keys that AWS KMS makes and decrypts: against moto's server."""

from __future__ import annotations

import base64
import json
import logging
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from tracklayer.errors import StoreError
from tracklayer.store import Blob, Store, keys_of
from tracklayer.store.kms import KmsKeys

REGION = "eu-west-1"


@pytest.fixture(autouse=True)
def login(nobodys_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of nobody in particular."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-key")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was asked of KMS, and how often."""
    counter: Counter[str] = Counter()
    make = boto3.Session

    def counted(**options: Any) -> Any:
        session = make(**options)
        session.events.register(
            "before-call.kms", lambda model, **_: counter.update([model.name]), unique_id="count"
        )
        return session

    monkeypatch.setattr(boto3, "Session", counted)
    return counter


@pytest.fixture
def client(moto: str) -> Any:
    return boto3.Session(region_name=REGION).client("kms", endpoint_url=moto)


@pytest.fixture
def key(client: Any) -> str:
    found: str = client.create_key()["KeyMetadata"]["KeyId"]
    return found


def opened(root: Path, key: str, moto: str) -> Store:
    """As a process that has just started opens it."""
    return Store(root, keys_of(f"aws-kms:{key}?region={REGION}&endpoint={moto}", root=root))


def put(store: Store, content: bytes) -> Blob:
    with store.create() as writer:
        writer.write(content)
        return writer.commit()


def test_kms_is_asked_once_for_a_key_and_once_a_process(
    tmp_path: Path, moto: str, key: str, asked: Counter[str]
) -> None:
    store = opened(tmp_path / "store", key, moto)
    blobs = [put(store, b"%d" % number) for number in range(5)]
    assert asked == {"GenerateDataKey": 1}
    again = opened(tmp_path / "store", key, moto)
    for number, blob in enumerate(blobs):
        with again.open(blob) as stream:
            assert stream.read() == b"%d" % number
    put(again, b"more")
    assert asked == {"GenerateDataKey": 1, "Decrypt": 1}


def test_only_what_kms_encrypted_is_kept(tmp_path: Path, moto: str, key: str) -> None:
    root = tmp_path / "store"
    put(opened(root, key, moto), b"content")
    keys = KmsKeys(key, root, region=REGION, endpoint=moto)
    key_id, clear = keys.current
    [path] = root.glob("keys/*.json")
    assert path.stem == key_id
    assert path.stat().st_mode & 0o077 == 0
    assert json.loads(path.read_text())["kms_key"].endswith(key)
    for file in root.rglob("*"):
        if file.is_file():
            assert clear not in file.read_bytes()


def test_a_key_is_in_no_log(
    tmp_path: Path, moto: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("botocore").setLevel(logging.NOTSET)  # as in a new process
    keys = KmsKeys(key, tmp_path / "store", region=REGION, endpoint=moto)
    _, clear = keys.current
    again = KmsKeys(key, tmp_path / "store", region=REGION, endpoint=moto)
    assert again.current[1] == clear
    assert "urllib3" in {record.name.partition(".")[0] for record in caplog.records}
    assert base64.b64encode(clear).decode() not in caplog.text
    assert "s3cret" not in caplog.text


def test_a_rotation_makes_one_key_and_forgets_the_old_one(
    tmp_path: Path, moto: str, key: str, asked: Counter[str]
) -> None:
    store = opened(tmp_path / "store", key, moto)
    blobs = [put(store, b"%d" % number) for number in range(3)]
    [old] = (tmp_path / "store").glob("keys/*.json")
    other = opened(tmp_path / "store", key, moto)
    with other.open(blobs[0]) as stream:
        assert stream.read() == b"0"
    asked.clear()
    done = store.rotate()
    assert asked == {"GenerateDataKey": 1}
    assert (done.made, done.rewrapped, done.unused) == (True, 3, (old.stem,))
    assert [path.stem for path in (tmp_path / "store").glob("keys/*.json")] == [done.key]
    # A process that runs on finds the new key by itself.
    with other.open(blobs[1]) as stream:
        assert stream.read() == b"1"
    assert store.verify() == other.verify() == []


def test_a_key_is_of_one_store(tmp_path: Path, moto: str, key: str) -> None:
    blob = put(opened(tmp_path / "one", key, moto), b"content")
    put(opened(tmp_path / "two", key, moto), b"other")
    [kept] = (tmp_path / "one").glob("keys/*.json")
    shutil.copy(kept, tmp_path / "two" / "keys")
    shutil.copytree(tmp_path / "one" / "sealed", tmp_path / "two" / "sealed", dirs_exist_ok=True)
    with pytest.raises(StoreError, match=f"key {kept.stem}.*InvalidCiphertext") as error:
        opened(tmp_path / "two", key, moto).open(blob)
    assert "of another store" in str(error.value)


def test_a_store_may_be_moved(tmp_path: Path, moto: str, key: str) -> None:
    blob = put(opened(tmp_path / "one", key, moto), b"content")
    (tmp_path / "one").rename(tmp_path / "two")
    with opened(tmp_path / "two", key, moto).open(blob) as stream:
        assert stream.read() == b"content"


def test_two_at_once_make_one_key(tmp_path: Path, moto: str, key: str) -> None:
    stores = [opened(tmp_path / "store", key, moto) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda store: put(store, b"%d" % id(store)), stores))
    assert len(list((tmp_path / "store").glob("keys/*.json"))) == 1
    assert stores[0].verify() == []


def test_a_lost_key_is_named(tmp_path: Path, moto: str, key: str) -> None:
    blob = put(opened(tmp_path / "store", key, moto), b"content")
    [kept] = (tmp_path / "store").glob("keys/*.json")
    raw = kept.read_text()
    kept.unlink()
    with pytest.raises(StoreError, match=f"key {kept.stem} is needed, and the folder"):
        opened(tmp_path / "store", key, moto).open(blob)
    kept.write_text(raw.replace('"number"', '"nummer"'))
    with pytest.raises(StoreError, match=f"{kept} is damaged"):
        opened(tmp_path / "store", key, moto).open(blob)


def test_what_kms_refuses_is_explained(
    tmp_path: Path, moto: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = put(opened(tmp_path / "store", key, moto), b"content")
    with pytest.raises(StoreError, match="There is no such key"):
        put(opened(tmp_path / "other", "00000000-0000-0000-0000-000000000000", moto), b"x")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreError, match="boto3 reads its login") as error:
        opened(tmp_path / "store", key, moto).open(blob)
    assert "s3cret-key" not in str(error.value)
    root = tmp_path / "store"
    with pytest.raises(StoreError, match="region"):
        Store(root, keys_of(f"aws-kms:{key}", root=root)).open(blob)
