"""What nothing names goes, and of the cache of sources what does not fit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tracklayer.errors import StoreError
from tracklayer.store.disk import explained, sync
from tracklayer.store.locks import exclusive
from tracklayer.store.manifest import Blob
from tracklayer.store.objects import Objects
from tracklayer.store.refs import SOURCES, Note, Refs
from tracklayer.store.trees import Trees

_DRAFT = 24 * 3600.0  # seconds for which what was received waits to be gone on with


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be.

    ``sources``: the names of sources that were dropped. ``freed`` and ``kept`` in bytes. ``over``:
    by how many bytes what must be kept is above the quota.
    """

    sources: tuple[str, ...]
    trees: int
    objects: int
    drafts: int
    freed: int
    kept: int
    over: int


class Collector:
    """One collection, while nobody stores or reads anything.

    Names go first, then trees, then objects, each durably before the next: a collector that dies
    leaves things that nothing names, never a name for nothing.
    """

    def __init__(self, objects: Objects, trees: Trees, refs: Refs) -> None:
        self._objects, self._trees, self._refs = objects, trees, refs
        self._root = objects.root

    def run(
        self,
        *,
        quota: int | None,
        older_than: float | None,
        dry_run: bool,
        wait: float,
    ) -> Collected:
        """See :meth:`tracklayer.store.store.Store.collect`."""
        busy = f"the store {self._root} is in use: something is being stored or read"
        with explained(self._root):
            lock = self._objects.disk.folder() / "lock"
            with exclusive(lock, wait=wait, busy=busy):
                return self._collect(quota, older_than, dry_run=dry_run)

    def _collect(self, quota: int | None, older_than: float | None, *, dry_run: bool) -> Collected:
        now = time.time()
        manifests = [self._trees.path(digest) for digest in self._trees.digests()]
        objects = list(self._objects.paths())
        sizes = {path: path.stat().st_size for path in [*manifests, *objects]}
        drafts = [(path, *_draft(path)) for path in self._root.glob("drafts/*")]
        waiting = sorted(
            (changed, path, size) for path, changed, size in drafts if changed > now - _DRAFT
        )

        def weigh(paths: Iterable[Path]) -> int:
            return sum(sizes.get(path, 0) for path in paths)

        needed = {path for note in self._notes() for path in self._needs(note)}
        total = weigh(needed) + sum(size for _, _, size in waiting)
        while quota is not None and total > quota and waiting:
            total -= waiting.pop(0)[2]
        dropped, full = [], False
        for name, changed, needs in self._sources():
            more = weigh(needs - needed)
            full = full or (quota is not None and total + more > quota)
            if (
                (full and more)
                or not needs
                or (older_than is not None and changed < now - older_than)
            ):
                dropped.append(name)
            else:
                needed |= needs
                total += more
        gone = [[path for path in paths if path not in needed] for paths in (manifests, objects)]
        left = [(path, size) for path, _, size in drafts if path not in {w[1] for w in waiting}]
        if not dry_run:
            self._remove(dropped, gone, [path for path, _ in left])
        return Collected(
            sources=tuple(sorted(dropped)),
            trees=len(gone[0]),
            objects=len(gone[1]),
            drafts=len(left),
            freed=weigh([*gone[0], *gone[1]]) + sum(size for _, size in left),
            kept=total,
            over=max(0, total - quota) if quota is not None else 0,
        )

    def _notes(self) -> list[Note]:
        names = (name for name in self._refs.names() if not name.startswith(SOURCES))
        return [note for name in names if (note := self._refs.read(name))]

    def _sources(self) -> list[tuple[str, float, set[Path]]]:
        """The cache, last used first: name, last use, what it needs; a broken one needs nothing."""
        found = []
        for name in self._refs.names(SOURCES):
            try:
                note = self._refs.read(name)
                entry = (name, note.changed, self._needs(note)) if note else (name, 0.0, set())
            except StoreError:
                entry = (name, 0.0, set())
            found.append(entry)
        return sorted(found, key=lambda entry: entry[1], reverse=True)

    def _needs(self, note: Note) -> set[Path]:
        """The files of the store that a name reaches.

        :raises StoreError: its tree cannot be read, so that nobody knows.
        """
        if isinstance(note.target, Blob):
            blobs: Iterable[Blob] = [note.target]
            needs = set()
        else:
            blobs = self._trees.read(note.target).files
            needs = {self._trees.path(note.target)}
        for blob in blobs:
            needs |= {self._objects.sealed(blob.digest), self._objects.plain(blob.digest)}
        return needs

    def _remove(self, names: list[str], files: list[list[Path]], drafts: list[Path]) -> None:
        for name in names:
            self._refs.drop(name)
        self._refs.prune()
        shutil.rmtree(self._root / "names", ignore_errors=True)  # of the store's first layout
        for path in drafts:
            shutil.rmtree(path)
        self._objects.disk.sweep()
        for paths in files:
            sync(self._root)
            for path in paths:
                path.unlink()


def _draft(folder: Path) -> tuple[float, int]:
    """When something last arrived, and the bytes that it takes on the disk."""
    changed, size = folder.stat().st_mtime, 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found = path.stat()
            changed, size = max(changed, found.st_mtime), size + found.st_blocks * 512
    return changed, size
