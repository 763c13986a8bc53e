"""MLflow's artifacts as references of the store: ``tracklayer:///<folder>``.

The artifact ``<path>`` is the reference ``mlflow/<folder>/<path>`` to content in the store, so that
it is encrypted with everything else, and the same content is kept once. Nothing is written in
plain: an upload goes from the socket into the store, and :meth:`StoreArtifactRepository.read` gives
a stream that decrypts what is read. To delete an artifact drops its reference; ``store gc`` takes
the bytes. No address leads out of ``mlflow/``: whoever may use MLflow can name any (an experiment
has an address of its own), and must not reach other references by it.
"""

from __future__ import annotations

import asyncio
import posixpath
import shutil
from collections.abc import AsyncIterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

# A subclass of MLflow's own class, and only MLflow asks for it: see the module `destination`.
from mlflow.entities import FileInfo  # noqa: TID253
from mlflow.exceptions import MlflowException  # noqa: TID253
from mlflow.protos.databricks_pb2 import (  # noqa: TID253
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.store.artifact.artifact_repo import (  # noqa: TID253
    ArtifactRepository,
    StreamUploadMixin,
)

from tracklayer.errors import StoreError
from tracklayer.store import Blob, Manifest, open_store
from tracklayer.tracking.destination import ROOT

_MIB = 1024**2


class StoreArtifactRepository(ArtifactRepository, StreamUploadMixin):
    """The artifacts below one folder of the store's references.

    It offers no multipart upload and no signed addresses: MLflow says so to whoever asks, and its
    clients then send the file as one.

    :param artifact_uri: ``tracklayer:///<folder>`` in the store of the settings; the folder may be
        empty.
    :raises MlflowException: it is no such address, or the store cannot be opened.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        parts = urlsplit(artifact_uri)
        if parts.netloc or parts.query or parts.fragment:
            raise _invalid(f"{artifact_uri!r} names no folder: write it as tracklayer:///folder.")
        self._root = f"{ROOT}/{_clean(unquote(parts.path).strip('/'))}".rstrip("/")
        with _mapped():
            self._store = open_store()

    # Writing

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Store one file."""
        name = self._name(artifact_path, Path(local_file).name)
        with _mapped(), self._store.session():
            self._store.set_ref(name, self._store.put_file(Path(local_file)))

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Store the files of a folder, each under its path in it."""
        root = Path(local_dir)
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            folder = file.parent.relative_to(root).as_posix()
            self.log_artifact(str(file), posixpath.join(artifact_path or "", folder))

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Store what a stream has; the artifact appears when all of it is stored."""
        name = self._name(artifact_path, posixpath.basename(artifact_file_name))
        with _mapped(), self._store.session(), self._store.create() as writer:
            while part := stream.read(_MIB):
                writer.write(part)
            self._store.set_ref(name, writer.commit())

    async def log_artifact_from_async_stream(
        self,
        chunks: AsyncIterable[bytes],
        artifact_file_name: str,
        artifact_path: str | None = None,
    ) -> None:
        """The same while the server goes on: a thread stores one part while the next one comes."""
        name = self._name(artifact_path, posixpath.basename(artifact_file_name))
        # One thread for all of it, waited for in any case: nothing is closed that it still uses.
        with _mapped(), ThreadPoolExecutor(1) as thread:
            work = partial(asyncio.get_running_loop().run_in_executor, thread)
            stack = ExitStack()
            try:
                await work(stack.enter_context, self._store.session())
                writer = await work(stack.enter_context, self._store.create())
                storing = work(writer.write, b"")
                waiting = bytearray()
                async for chunk in chunks:
                    waiting += chunk
                    if len(waiting) >= _MIB:  # the parts of a request are small
                        await storing
                        storing, waiting = work(writer.write, waiting), bytearray()
                await storing
                await work(writer.write, waiting)
                blob = await work(writer.commit)
                await work(self._store.set_ref, name, blob)
            finally:
                thread.submit(stack.close)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Forget a file, or all files of a folder. What is not there is no error."""
        name = self._name(artifact_path)
        with _mapped():
            names = [found.name for found in self._store.refs(f"{name}/")]
            for each in [*names, name]:
                self._store.drop_ref(each)

    # Reading

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What lies directly in a folder; nothing, if it is a file or does not exist."""
        below = f"{self._name(path)}/"
        found: dict[str, FileInfo] = {}
        with _mapped():
            for ref in self._store.refs(below):
                first, deeper, _ = ref.name.removeprefix(below).partition("/")
                place = posixpath.join(_clean(path or ""), first)
                size = None if deeper else ref.target.size
                found[first] = FileInfo(place, bool(deeper), size)
        return [found[name] for name in sorted(found)]

    def read(self, path: str) -> tuple[Blob, BinaryIO]:
        """What one artifact is, and its content; whoever asks closes the stream.

        :raises MlflowException: there is none.
        """
        with _mapped():
            target = self._store.ref(self._name(path))
            if target is None or isinstance(target, Manifest):
                message = f"There is no artifact {path!r}."
                raise MlflowException(message, error_code=RESOURCE_DOES_NOT_EXIST)
            return target, self._store.open(target)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        _, stream = self.read(remote_file_path)
        with _mapped(), stream, Path(local_path).open("wb") as file:
            shutil.copyfileobj(stream, file, _MIB)

    def _name(self, *parts: str | None) -> str:
        """The reference of a path."""
        path = _clean("/".join(filter(None, parts)))
        return f"{self._root}/{path}".rstrip("/")


def _clean(path: str) -> str:
    """A path in its shortest form; that of the folder itself is empty."""
    if path.startswith("/") or ".." in path.split("/"):
        raise _invalid(f"{path!r} leads out of the folder of the artifacts.")
    short = posixpath.normpath(path or ".")
    return "" if short == "." else short


def _invalid(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


@contextmanager
def _mapped() -> Iterator[None]:
    """What the store says, to a client of MLflow."""
    try:
        yield
    except StoreError as error:
        raise MlflowException(str(error)) from error
