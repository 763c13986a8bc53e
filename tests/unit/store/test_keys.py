"""Keys: made once, never lost in silence, never shown."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.files import locked, write_text
from tracklayer.store.keys import EnvKeys, FileKeys, keys_of, parse_keys
from tracklayer.store.kms import KmsKeys
from tracklayer.store.seal import fingerprint

A, B = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
ID_A, ID_B = fingerprint(b"\1" * 32), fingerprint(b"\2" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "keys"


@pytest.fixture
def keys(tmp_path: Path, path: Path) -> FileKeys:
    return FileKeys(path, tmp_path / "sealed")


def test_a_file_is_made_with_its_first_key(path: Path, keys: FileKeys) -> None:
    assert list(keys.ids) == []
    assert not path.exists()
    key_id, key = keys.current
    assert len(key) == 32
    assert key_id == fingerprint(key)
    assert path.read_text() == f"{base64.b64encode(key).decode()}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert keys.get(key_id) == key
    assert keys.current == (key_id, key)


def test_a_new_key_comes_first_and_old_ones_stay_until_they_are_retired(
    path: Path, keys: FileKeys
) -> None:
    first, _ = keys.current
    second = keys.new()
    third = keys.new()
    assert list(keys.ids) == [third, second, first]
    assert keys.current[0] == third
    assert keys.get(first)
    keys.retire([first, third])
    assert list(keys.ids) == [third, second]
    assert len(path.read_text().splitlines()) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_another_process_changed_is_read_again(path: Path, keys: FileKeys) -> None:
    keys.current  # noqa: B018 - which makes the file
    other = path.with_name("other")
    other.write_text(f"{A}\n{B}\n")
    other.chmod(0o600)
    other.replace(path)
    assert list(keys.ids) == [ID_A, ID_B]
    assert keys.get(ID_B) == b"\2" * 32


def test_a_missing_key_is_named_with_those_that_are_there(path: Path, keys: FileKeys) -> None:
    key_id, key = keys.current
    with pytest.raises(StoreError, match=f"key {ID_A} is needed, and the key file {path}") as error:
        keys.get(ID_A)
    assert key_id in str(error.value)
    assert base64.b64encode(key).decode() not in str(error.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(path: Path, keys: FileKeys, mode: int) -> None:
    keys.current  # noqa: B018 - which makes the file
    path.chmod(mode)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
        keys.get(ID_A)


def test_a_lost_file_is_not_begun_anew(tmp_path: Path, path: Path, keys: FileKeys) -> None:
    (tmp_path / "sealed" / "ab").mkdir(parents=True)
    (tmp_path / "sealed" / "ab" / "cd").touch()
    with pytest.raises(StoreError, match="is missing"):
        keys.current  # noqa: B018 - it raises
    assert not path.exists()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="must be able to read and write"):
        FileKeys(tmp_path / "file" / "keys", tmp_path).current  # noqa: B018 - it raises


def test_many_at_once_make_one_key(tmp_path: Path, path: Path) -> None:
    def first(_: int) -> str:
        return FileKeys(path, tmp_path / "sealed").current[0]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(first, range(16)))) == 1
    assert len(path.read_text().splitlines()) == 1


def test_whoever_comes_second_takes_the_first_key_of_the_other(tmp_path: Path, path: Path) -> None:
    """What the other has encrypted meanwhile does not look like files without their key."""
    path.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with locked(path.with_name("keys.lock")):  # the other makes its key
            (tmp_path / "sealed" / "ab").mkdir(parents=True)
            (tmp_path / "sealed" / "ab" / "cdef").touch()
            second = pool.submit(lambda: FileKeys(path, tmp_path / "sealed").current)
            wait([second], timeout=0.3)
            write_text(path, f"{A}\n")
        assert second.result() == (ID_A, b"\1" * 32)


@pytest.mark.parametrize(
    "text", [f"{A},{B}", f"{A} {B}", f"\n {A}\n{B}\n", f"{A}, {B},", f"{A}\t{B}"]
)
def test_keys_may_be_separated_by_commas_or_space(text: str) -> None:
    assert list(parse_keys(text, "x")) == [ID_A, ID_B]


@pytest.mark.parametrize("bad", ["short", "c2hvcnQ=", A[:-4], A + A, "päss"])
def test_what_is_no_key_is_said_but_not_shown(bad: str) -> None:
    with pytest.raises(StoreError, match="entry 2 of the place is not a key") as error:
        parse_keys(f"{A},{bad}", "the place")
    assert bad not in str(error.value)


def test_a_variable_holds_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = EnvKeys("KEYS_OF_THE_TEST")
    monkeypatch.delenv("KEYS_OF_THE_TEST", raising=False)
    with pytest.raises(StoreError, match="KEYS_OF_THE_TEST holds no key"):
        keys.current  # noqa: B018 - it raises
    monkeypatch.setenv("KEYS_OF_THE_TEST", f"{A} {B}")
    assert keys.current == (ID_A, b"\1" * 32)
    assert keys.get(ID_B) == b"\2" * 32
    assert list(keys.ids) == [ID_A, ID_B]
    with pytest.raises(StoreError, match=f"key {'0' * 16} is needed, and the variable"):
        keys.get("0" * 16)
    with pytest.raises(StoreError, match="Put a new key first"):
        keys.new()
    keys.retire([ID_B])
    assert list(keys.ids) == [ID_A, ID_B]


def test_a_location_names_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keys_of("none", root=tmp_path) is None
    found = keys_of("file:~/keys", root=tmp_path)
    assert isinstance(found, FileKeys)
    assert found.current
    assert (tmp_path / "keys").exists()
    assert isinstance(keys_of("env:X", root=tmp_path), EnvKeys)
    assert isinstance(keys_of("aws-kms:alias/store?region=eu-west-1", root=tmp_path), KmsKeys)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("flie:/x", "Did you mean file"),
        ("", "A location is one of"),
        ("vault:x", "file:..., env:..., aws-kms:"),
        ("file:", "names no file"),
        ("aws-kms:", "does not name a key"),
        ("aws-kms:key?zone=x", "does not name a key"),
    ],
)
def test_a_wrong_location_is_explained(tmp_path: Path, location: str, why: str) -> None:
    with pytest.raises(StoreError, match=why):
        keys_of(location, root=tmp_path)


def test_another_kind_is_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package beside ours, as `pip install` leaves it."""
    (tmp_path / "vault_keys.py").write_text(
        "def keys(rest, root):\n"
        "    from tracklayer.store.keys import EnvKeys\n"
        "    assert root.name == 'store'\n"
        "    return EnvKeys(rest.upper())\n"
    )
    info = tmp_path / "vault_keys-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vault-keys\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tracklayer.keys]\nvault = vault_keys:keys\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("THE_VAULT", A)
    found = keys_of("vault:the_vault", root=tmp_path / "store")
    assert found is not None
    assert found.current[0] == ID_A
    with pytest.raises(StoreError, match="Did you mean vault"):
        keys_of("vualt:x", root=tmp_path)
