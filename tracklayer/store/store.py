"""The store of artifacts: blobs and trees by the digest of their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tracklayer.errors import StoreError
from tracklayer.settings import settings
from tracklayer.store.collect import Collected, Collector
from tracklayer.store.disk import Disk, becoming, explained
from tracklayer.store.draft import Draft, Hash
from tracklayer.store.keys import Keys, keys_of
from tracklayer.store.manifest import Blob, File, Manifest, scan, walk
from tracklayer.store.objects import Objects, digest_of
from tracklayer.store.refs import SOURCES, Note, Refs
from tracklayer.store.rotate import Rotated, Rotation
from tracklayer.store.survey import Usage, usage, verify
from tracklayer.store.trees import Trees
from tracklayer.store.writer import Writer, store_file

_WRITERS = 4  # waiting for the disk overlaps; hashing and ciphers leave the interpreter's lock


class Ref(NamedTuple):
    """A name and what it means. ``changed``: seconds since the epoch; for a source its last use."""

    name: str
    target: Manifest | Blob
    changed: float


class Store:
    """A content-addressed store in a folder of its own, owner-only.

    ::

        sealed/ab/cdef...      encrypted content by its SHA-256
        objects/ab/cdef...     plain content: where encryption is off, or was once
        manifests/<hex>.json   a tree: its files and its origin
        refs/<name>@           names; what they reach is kept by :meth:`collect`
        drafts/                what is being received, and can go on after a kill
        tmp/                   what is being written; swept when its process is gone

    Any number of threads, processes and machines that share the folder may write at the same time:
    equal content has one name, and a name appears only when its content is whole.

    :param keys: encrypt with these; None turns encryption off.
    """

    def __init__(self, root: Path, keys: Keys | None = None) -> None:
        self.root = root
        self._objects = Objects(Disk(root), keys)
        self._trees = Trees(self._objects.disk)
        self._refs = Refs(root)

    def create(self) -> Writer:
        """New content, written from its start to its end.

        ::

            with store.create() as writer:
                writer.write(b"...")
                blob = writer.commit()
        """
        return Writer(self._objects)

    def draft(self, name: str, size: int, *, also: Sequence[Hash] = ()) -> Draft:
        """New content of ``size`` bytes that arrives in any order; goes on where an earlier draft
        of this name ended. See :class:`~tracklayer.store.draft.Draft`."""
        return Draft(self._objects, name, size, also)

    def put_file(self, path: Path) -> Blob:
        """Store a file.

        :raises StoreError: it cannot be read, the disk is full, the store cannot be written.
        """
        return store_file(self._objects, path)

    def put_tree(
        self, folder: Path, *, origin: dict[str, str] | None = None, move: bool = False
    ) -> Manifest:
        """Store all files of a folder; ``move`` removes each that is stored.

        :raises StoreError: as for :meth:`put_file`; also a link that leaves the folder, a device.
        """
        with explained(self.root):
            entries = list(walk(folder))
        uses = Counter(real for _, real, _ in entries)  # a link is a second use of its file

        def write(entry: tuple[str, Path, bool]) -> File:
            path, real, executable = entry
            blob = store_file(self._objects, real)
            if move and uses[real] == 1:
                real.unlink()
            return File(path=path, executable=executable, digest=blob.digest, size=blob.size)

        with self.session(), ThreadPoolExecutor(_WRITERS) as pool:
            return self.put_manifest(pool.map(write, entries), origin)

    def put_manifest(self, files: Iterable[File], origin: dict[str, str] | None = None) -> Manifest:
        """Store a tree whose files are in the store already.

        :raises StoreError: a file is not in the store, two have the same path, the disk is full.
        """
        manifest = Manifest(files=tuple(sorted(files, key=_path)), origin=origin or {})
        with self.session():
            self._need(manifest)
            if len({file.path for file in manifest.files}) != len(manifest.files):
                raise StoreError("two files of a manifest have the same path")
            self._trees.write(manifest)
        return manifest

    def manifest(self, digest: str) -> Manifest:
        """The tree of a digest.

        :raises StoreError: it is not in the store, or damaged.
        """
        return self._trees.read(digest)

    def has(self, manifest: Manifest) -> bool:
        """Whether every file of a tree is there with its size."""
        return all(self._objects.has(file) for file in manifest.files)

    def open(self, blob: Blob) -> BinaryIO:
        """The content of an object, seekable; only what is read is decrypted.

        :raises StoreError: it is missing or its key is. Reading raises it for a damaged chunk;
            plain content is verified by :meth:`materialise` and :meth:`verify` alone.
        """
        return self._objects.open(blob)

    def materialise(self, digest: str, into: Path) -> None:
        """Write a tree to the folder ``into``: read-only copies, verified, all or nothing.

        Done already by an earlier try: nothing happens.

        :raises StoreError: an object is missing or damaged, its key is missing, or ``into`` holds
            something else.
        """
        with self.session(), explained(self.root):
            manifest = self.manifest(digest)
            if into.is_dir() and any(into.iterdir()):
                if scan(into) == manifest.files:
                    return
                raise StoreError(
                    f"{into} holds something other than {digest}", hint=f"Remove {into}."
                )
            with becoming(into) as fresh:
                for file in manifest.files:
                    target = fresh / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._objects.read(file, target, mode=0o555 if file.executable else 0o444)

    def set_ref(self, name: str, target: Manifest | Blob) -> None:
        """Give a stored tree or object a name, or a name another meaning, in one step.

        :raises StoreError: it is not in the store, the name is not a path.
        """
        path = self._refs.path(name)
        with self.session():
            self._need(target)
            if isinstance(target, Manifest):
                self.manifest(target.digest)
            self._objects.disk.write_small(path, self._refs.document(_address(target)))

    def ref(self, name: str) -> Manifest | Blob | None:
        """What a name means.

        :raises StoreError: the name or its tree is damaged.
        """
        with explained(self.root):
            note = self._refs.read(name)
        return self._target(note) if note else None

    def drop_ref(self, name: str) -> None:
        """Forget a name, if it is there."""
        with explained(self.root):
            self._refs.drop(name)

    def refs(self, prefix: str = "") -> Iterator[Ref]:
        """The names that begin so, in order.

        :raises StoreError: a name or its tree is damaged.
        """
        with explained(self.root):
            for note in self._refs.notes(prefix):
                yield Ref(note.name, self._target(note), note.changed)

    def remember(self, key: str, manifest: Manifest) -> None:
        """Note that a key, such as a pinned source, means this tree. Under ``sources/``, where
        :meth:`collect` may drop it when a quota asks for that."""
        self.set_ref(_source(key), manifest)

    def recall(self, key: str) -> Manifest | None:
        """The tree of a key, if it is known and all its files are there. Counts as its use.

        :raises StoreError: the note or the tree is damaged.
        """
        name = _source(key)
        found = self.ref(name)
        if not isinstance(found, Manifest) or not self.has(found):
            return None
        with explained(self.root):
            self._refs.used(name)
        return found

    def session(self) -> AbstractContextManager[None]:
        """What is stored inside is not collected before the end. May be nested."""
        return self._objects.disk.session()

    def collect(
        self,
        *,
        quota: int | None = None,
        older_than: float | None = None,
        dry_run: bool = False,
        wait: float = 60,
    ) -> Collected:
        """Remove what no name reaches, and drafts that nobody went on with for a day.

        Names under ``sources/`` are a cache; every other name is kept, and all that it reaches.

        :param quota: bytes; while the store has more, sources are dropped, oldest use first.
        :param older_than: seconds; sources that were not used for so long are dropped too.
        :param dry_run: only say what would be removed.
        :param wait: seconds to wait for sessions to end.
        :raises StoreError: the store is in use for longer, a name or its tree cannot be read.
        """
        return Collector(self._objects, self._trees, self._refs).run(
            quota=quota, older_than=older_than, dry_run=dry_run, wait=wait
        )

    def rotate(self, on_progress: Callable[[str], None] | None = None) -> Rotated:
        """Bring all objects under a new key, and forget the older ones.

        Where objects are not under the current key, because a person has put it first or because
        an earlier rotation was ended, no new one is made. Drafts begin anew after it.

        :raises StoreError: encryption is off; a person has to make the key; the disk is full.
        """
        if self._objects.keys is None:
            raise StoreError(
                f"the store {self.root} is not encrypted: no keys are named",
                hint="Name their place: the setting store_key (TRACKLAYER_STORE_KEY).",
            )
        return Rotation(self._objects, self._objects.keys, on_progress or (lambda _: None)).run()

    def verify(self) -> list[str]:
        """Read everything; one sentence for each thing that is missing or damaged."""
        with self.session(), explained(self.root):
            return list(verify(self._objects, self._trees, self._refs))

    def usage(self) -> Usage:
        """How much is there."""
        with self.session(), explained(self.root):
            return usage(self._objects, self._trees, self._refs)

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder on the file system of the store for something that is about to be stored."""
        return self._objects.disk.scratch()

    def _need(self, target: Manifest | Blob) -> None:
        files = target.files if isinstance(target, Manifest) else [target]
        if missing := [file for file in files if not self._objects.has(file)]:
            names = [file.path if isinstance(file, File) else file.digest for file in missing[:10]]
            raise StoreError(f"not in the store {self.root}: {', '.join(names)}")

    def _target(self, note: Note) -> Manifest | Blob:
        return self.manifest(note.target) if isinstance(note.target, str) else note.target


def open_store() -> Store:
    """The store of the settings.

    :raises StoreError: the place of its keys is not one.
    """
    root = settings().store
    return Store(root, keys_of(settings().store_key_location, root=root))


def _path(file: File) -> str:
    return file.path


def _address(target: Manifest | Blob) -> str | Blob:
    return target.digest if isinstance(target, Manifest) else target


def _source(key: str) -> str:
    return f"{SOURCES}{digest_of(key.encode()).removeprefix('sha256:')}"
