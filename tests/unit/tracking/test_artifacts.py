from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tracklayer.store import Store, open_store
from tracklayer.tracking.artifacts import StoreArtifactRepository
from tracklayer.tracking.server import adopt

# What is tested is a class of MLflow's kind.
artifact_repo: Any = import_module("mlflow.store.artifact.artifact_repo")
MlflowException = artifact_repo.MlflowException
MIB = 1024**2


@pytest.fixture
def store(own_home: Path) -> Store:
    return open_store()


@pytest.fixture
def artifacts(store: Store) -> StoreArtifactRepository:
    return StoreArtifactRepository("tracklayer:///")


def put(artifacts: StoreArtifactRepository, path: str, content: bytes = b"x") -> None:
    folder, _, name = path.rpartition("/")
    artifacts.log_artifact_from_stream(io.BytesIO(content), name, folder or None)


def contents(artifacts: StoreArtifactRepository, path: str) -> bytes:
    with artifacts.read(path)[1] as stream:
        return stream.read()


def listed(
    artifacts: StoreArtifactRepository, path: str | None = None
) -> list[tuple[str, int | None]]:
    found = artifacts.list_artifacts(path)
    assert all(info.is_dir is (info.file_size is None) for info in found)
    return [(info.path, info.file_size) for info in found]


def test_mlflow_finds_it(store: Store) -> None:
    (point,) = entry_points(group="mlflow.artifact_repository", name="tracklayer")
    assert isinstance(point.load()("tracklayer:///"), StoreArtifactRepository)


def test_a_folder_there_and_back(
    artifacts: StoreArtifactRepository, store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    (folder / "sub dir/é").mkdir(parents=True)
    (folder / "a@b%20.txt").write_bytes(b"a")
    (folder / "sub dir/é/large").write_bytes(os.urandom(2 * MIB + 1))
    (folder / "sub dir/empty").touch()
    artifacts.log_artifacts(str(folder), "1/r/artifacts")
    artifacts.log_artifact(str(folder / "a@b%20.txt"))
    assert [ref.name for ref in store.refs()] == [
        "mlflow/1/r/artifacts/a@b%20.txt",
        "mlflow/1/r/artifacts/sub dir/empty",
        "mlflow/1/r/artifacts/sub dir/é/large",
        "mlflow/a@b%20.txt",
    ]
    assert listed(artifacts) == [("1", None), ("a@b%20.txt", 1)]
    assert listed(artifacts, "1/r/artifacts/sub dir") == [
        ("1/r/artifacts/sub dir/empty", 0),
        ("1/r/artifacts/sub dir/é", None),
    ]
    assert listed(artifacts, "a@b%20.txt") == listed(artifacts, "none") == []
    there = Path(artifacts.download_artifacts("1/r/artifacts", str(tmp_path)))
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == files
    assert all((there / name).read_bytes() == (folder / name).read_bytes() for name in files)


def test_each_address_is_a_folder_of_its_own(
    artifacts: StoreArtifactRepository, store: Store
) -> None:
    put(StoreArtifactRepository("tracklayer:///one/t%20wo/"), "a/b")
    assert [ref.name for ref in store.refs()] == ["mlflow/one/t wo/a/b"]
    assert contents(artifacts, "one/t wo/a/b") == b"x"


@pytest.mark.parametrize(
    "address",
    ["tracklayer://host/a", "tracklayer:///a?b=c", "tracklayer:///../x", "tracklayer:///a/%2e%2e"],
)
def test_an_address_that_leads_elsewhere(store: Store, address: str) -> None:
    with pytest.raises(MlflowException) as caught:
        StoreArtifactRepository(address)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("path", ["..", "../a", "a/../../b", "/a", "a/.."])
def test_a_path_that_leads_out(artifacts: StoreArtifactRepository, store: Store, path: str) -> None:
    for call in (artifacts.list_artifacts, artifacts.read, artifacts.delete_artifacts):
        with pytest.raises(MlflowException, match="leads out"):
            call(path)
    with pytest.raises(MlflowException, match="leads out"):
        artifacts.log_artifact_from_stream(io.BytesIO(b""), "name", path)
    assert list(store.refs()) == []


def test_the_last_upload_counts(artifacts: StoreArtifactRepository) -> None:
    put(artifacts, "a/b", b"old")
    put(artifacts, "a//./b", b"new")
    assert contents(artifacts, "a/b") == b"new"


def test_a_file_and_a_folder_of_one_name(artifacts: StoreArtifactRepository) -> None:
    put(artifacts, "a")
    put(artifacts, "a/b")
    assert contents(artifacts, "a") == contents(artifacts, "a/b") == b"x"
    artifacts.delete_artifacts("a")
    assert listed(artifacts) == []


def test_deleting(artifacts: StoreArtifactRepository, store: Store) -> None:
    for path in ("1/a/x", "1/a/y/z", "1/ab", "2"):
        put(artifacts, path, path.encode())
    artifacts.delete_artifacts("1/a")
    artifacts.delete_artifacts("nothing")
    assert [ref.name for ref in store.refs()] == ["mlflow/1/ab", "mlflow/2"]
    with pytest.raises(MlflowException) as caught:
        artifacts.read("1/a/x")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    blob = store.ref("mlflow/2")
    assert blob
    store.set_ref("deployments/p/1", blob)
    artifacts.delete_artifacts()
    assert [ref.name for ref in store.refs()] == ["deployments/p/1"]


def test_an_upload_in_parts(artifacts: StoreArtifactRepository, store: Store) -> None:
    content = os.urandom(3 * MIB + 5)

    async def parts(fail: bool) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 65_000):
            yield content[start : start + 65_000]
            if fail and start > 2 * MIB:
                raise ConnectionResetError

    asyncio.run(artifacts.log_artifact_from_async_stream(parts(False), "whole", "a"))
    assert contents(artifacts, "a/whole") == content
    with pytest.raises(ConnectionResetError):
        asyncio.run(artifacts.log_artifact_from_async_stream(parts(True), "half", "a"))
    assert listed(artifacts, "a") == [("a/whole", len(content))]
    assert list((store.root / "tmp").iterdir()) == []


def test_an_upload_that_is_cancelled(artifacts: StoreArtifactRepository, store: Store) -> None:
    """As when the server ends: what a thread still writes to is closed after that."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MIB)
            await asyncio.sleep(0)

    async def cancelled() -> None:
        upload = asyncio.create_task(artifacts.log_artifact_from_async_stream(endless(), "a"))
        while not any(path.stat().st_size > 4 * MIB for path in (store.root / "tmp").glob("*")):
            await asyncio.sleep(0.01)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload

    asyncio.run(cancelled())
    assert list((store.root / "tmp").iterdir()) == []
    assert list(store.refs()) == []
    store.collect(wait=0)  # nor does anybody keep it from being collected


def test_what_the_store_says_is_told(artifacts: StoreArtifactRepository, own_home: Path) -> None:
    put(artifacts, "a")
    (own_home / "keys/store").unlink()
    with pytest.raises(MlflowException, match=r"keys/store(.|\n)*backup"):
        artifacts.read("a")
    with pytest.raises(MlflowException, match="keys/store"):
        put(artifacts, "b")


def test_no_uploads_in_parts_to_signed_addresses() -> None:
    kinds = "MultipartUploadMixin", "MultipartDownloadMixin", "PresignedUploadMixin"
    offered = tuple(getattr(artifact_repo, kind) for kind in kinds)
    assert not issubclass(StoreArtifactRepository, offered)


def test_older_artifacts_are_taken_in_once(store: Store, tmp_path: Path) -> None:
    older = tmp_path / "artifacts"
    (older / "1/r/artifacts/model").mkdir(parents=True)
    (older / "1/r/artifacts/record.json").write_text("{}")
    (older / "1/r/artifacts/model/m").write_text("m")
    # As after a kill: the reference was set, the file not deleted yet; and an upload was cut off.
    store.set_ref("mlflow/1/r/artifacts/model/m", store.put_file(older / "1/r/artifacts/model/m"))
    (older / "1/.artifact.uploading.abc").write_text("ha")
    adopt(older, store)
    adopt(older, store)
    assert not older.exists()
    names = ["mlflow/1/r/artifacts/model/m", "mlflow/1/r/artifacts/record.json"]
    assert [ref.name for ref in store.refs()] == names
    assert contents(StoreArtifactRepository("tracklayer:///1/r"), "artifacts/record.json") == b"{}"


def test_older_artifacts_behind_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/a").write_text("a")
    (tmp_path / "artifacts").symlink_to("disk")
    adopt(tmp_path / "artifacts", store)
    assert [ref.name for ref in store.refs()] == ["mlflow/a"]
    assert list((tmp_path / "disk").iterdir()) == []
