"""The store of artifacts: blobs and trees by the digest of their content."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import ValidationError

from tracklayer.errors import StoreError
from tracklayer.store.manifest import DIGEST, Blob, File, Manifest, scan, walk
from tracklayer.store.objects import Objects, digest_of, explained, place

_WRITERS = 4  # waiting for the disk overlaps; hashing leaves the interpreter's lock


class Store:
    """A content-addressed store in a folder of its own, owner-only.

    ::

        objects/ab/cdef...     content by its SHA-256, mode 0400
        manifests/<hex>.json   a tree: its files and its origin
        names/<hex>.json       what is known under a key: a pinned source -> a manifest
        tmp/                   what is being written; anything older than a day is left over

    Any number of threads, processes and machines that share the folder may write at the same time:
    equal content has one name, and a name appears only when its content is whole.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = Objects(root)

    def put_file(self, path: Path) -> Blob:
        """Store a file.

        :raises StoreError: it cannot be read, the disk is full, the store cannot be written.
        """
        return self._objects.write(path)

    def put_tree(
        self, folder: Path, *, origin: dict[str, str] | None = None, move: bool = False
    ) -> Manifest:
        """Store all files of a folder; ``move`` gives the files away instead of copying them.

        :raises StoreError: as for :meth:`put_file`; also a link that leaves the folder, a device.
        """
        with explained(self.root):
            entries = list(walk(folder))
        uses = Counter(real for _, real, _ in entries)  # a link is a second use of its file

        def write(entry: tuple[str, Path, bool]) -> File:
            path, real, executable = entry
            blob = self._objects.write(real, move=move and uses[real] == 1)
            return File(path=path, executable=executable, digest=blob.digest, size=blob.size)

        with ThreadPoolExecutor(_WRITERS) as pool:
            return self.put_manifest(pool.map(write, entries), origin)

    def put_manifest(self, files: Iterable[File], origin: dict[str, str] | None = None) -> Manifest:
        """Store a tree whose files are in the store already.

        :raises StoreError: a file is not in the store, two have the same path, the disk is full.
        """
        manifest = Manifest(files=tuple(sorted(files, key=_path)), origin=origin or {})
        if missing := [file.path for file in manifest.files if not self._objects.has(file)]:
            raise StoreError(f"not in the store {self.root}: {', '.join(missing[:10])}")
        if len({file.path for file in manifest.files}) != len(manifest.files):
            raise StoreError("two files of a manifest have the same path")
        self._write(self._manifest_path(manifest.digest), manifest.document)
        return manifest

    def manifest(self, digest: str) -> Manifest:
        """The tree of a digest.

        :raises StoreError: it is not in the store, or damaged.
        """
        path = self._manifest_path(digest)
        with explained(self.root):
            if not path.exists():
                raise StoreError(f"there is no tree {digest} in the store {self.root}")
            document = path.read_bytes()
        try:
            manifest = Manifest.model_validate_json(document)
        except ValidationError as error:
            raise StoreError(f"{path} is damaged: {error.errors()[0]['msg']}") from error
        if digest_of(document) != digest:
            raise StoreError(f"{path} is damaged: its content is not {digest}")
        return manifest

    def has(self, manifest: Manifest) -> bool:
        """Whether every file of a tree is there with its size."""
        return all(self._objects.has(file) for file in manifest.files)

    def materialise(self, digest: str, into: Path) -> None:
        """Write a tree to the folder ``into``: read-only copies, verified, all or nothing.

        Done already by an earlier try: nothing happens.

        :raises StoreError: an object is missing or damaged, or ``into`` holds something else.
        """
        manifest = self.manifest(digest)
        with explained(self.root):
            if into.is_dir() and any(into.iterdir()):
                if scan(into) == manifest.files:
                    return
                raise StoreError(
                    f"{into} holds something other than {digest}", hint=f"Remove {into}."
                )
            into.parent.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
            try:
                fresh.chmod(0o755)
                for file in manifest.files:
                    target = fresh / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._objects.read(file, target, mode=0o555 if file.executable else 0o444)
                fresh.rename(into)  # over an empty folder too
            finally:
                shutil.rmtree(fresh, ignore_errors=True)

    def verify(self) -> list[str]:
        """Read everything; one sentence for each thing that is missing or damaged."""
        problems: list[str] = []
        with explained(self.root):
            problems += [f"{digest} is damaged" for digest in self._objects.damaged()]
            for path in sorted(self.root.glob("manifests/*.json")):
                try:
                    manifest = self.manifest(f"sha256:{path.stem}")
                except StoreError as error:
                    problems.append(error.message)
                    continue
                problems += [
                    f"{file.digest} is missing: {file.path} of sha256:{path.stem}"
                    for file in manifest.files
                    if not self._objects.path(file.digest).exists()
                ]
        return problems

    def remember(self, key: str, manifest: Manifest) -> None:
        """Note that a key, such as a pinned source, means this tree."""
        self._write(
            self._name_path(key), json.dumps({"key": key, "manifest": manifest.digest}).encode()
        )

    def recall(self, key: str) -> Manifest | None:
        """The tree of a key, if it is known and all its files are there.

        :raises StoreError: the note or the tree is damaged.
        """
        path = self._name_path(key)
        with explained(self.root):
            if not path.exists():
                return None
            try:
                digest = str(json.loads(path.read_bytes())["manifest"])
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{path} is damaged", hint=f"Remove {path}.") from error
        manifest = self.manifest(digest)
        return manifest if self.has(manifest) else None

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder on the file system of the store for something that is about to be stored."""
        return self._objects.scratch()

    def _write(self, target: Path, data: bytes) -> None:
        with self.scratch() as folder, explained(self.root):
            fresh = folder / target.name
            fresh.write_bytes(data)
            place(fresh, target)

    def _manifest_path(self, digest: str) -> Path:
        if not re.match(DIGEST, digest):
            raise StoreError(f"{digest!r} is not a digest; one looks like sha256:<64 hex digits>")
        return self.root / "manifests" / f"{digest.removeprefix('sha256:')}.json"

    def _name_path(self, key: str) -> Path:
        return self.root / "names" / f"{digest_of(key.encode()).removeprefix('sha256:')}.json"


def _path(file: File) -> str:
    return file.path
