"""From a handle to a tree in the store: recalled, or fetched once, checked and remembered."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tracklayer.errors import SourceError
from tracklayer.formats import check, policy
from tracklayer.sources.addresses import shown
from tracklayer.sources.engine import transfer
from tracklayer.sources.journal import Journal, journal
from tracklayer.sources.progress import Meter
from tracklayer.sources.protocol import (
    Context,
    Credentials,
    Limits,
    Local,
    Progress,
    Remote,
    Stream,
    Transfer,
    from_environment,
)
from tracklayer.sources.registry import parse
from tracklayer.sources.streams import pour
from tracklayer.sources.unpack import unpack
from tracklayer.store import Blob, File, Manifest, Store

_STORING = 4  # local files at the same time


class Fetched(NamedTuple):
    """A source in the store.

    ``cached``: nothing was downloaded, it was there already. ``formats``: what each file is by its
    content: path -> name of the format.
    """

    handle: str
    revision: str
    manifest: Manifest
    cached: bool
    formats: Mapping[str, str]


def fetch(
    handle: str,
    *,
    project: Path,
    store: Store,
    on_progress: Progress | None = None,
    on_bytes: Callable[[Transfer], None] | None = None,
    credential: Credentials | None = None,
    offline: bool = False,
    allow: frozenset[str] = frozenset(),
    scratch: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Fetched:
    """Bring a source into the store. What is pinned and stored already needs no network.

    :param project: folder of the project, to which ``path:`` is relative.
    :param on_progress: called about once a second with a line for people.
    :param on_bytes: called several times a second with how far it is.
    :param credential: gives the credential for a kind of service; default: the environment.
    :param offline: use no network; a handle that moves means what it meant at its last fetch.
    :param allow: what the project accepts although it may run code when it is loaded.
    :param scratch: where what git and the like leave on the disk may lie meanwhile; a folder of
        its own is made there, and is gone afterwards. Default: in the store.
    :raises SourceError: it cannot be resolved, fetched or trusted.
    :raises StoreError: the store is full, damaged or not writable.
    """
    report = on_progress or (lambda _line: None)
    source = parse(handle)
    revision = source.pinned
    asked = f"handle {handle}"
    allow |= policy(handle.partition(":")[0])
    offline = offline and not handle.startswith("path:")  # that is read without it, as it is now
    if offline and revision is None and (last := store.recall(asked)):
        revision = last.origin["revision"]
    if revision is not None and (known := store.recall(source.key(revision))):
        return Fetched(handle, revision, known, True, _formats(store, known, allow))
    if offline:
        raise SourceError(
            f"{shown(handle)} is not in the store {store.root}",
            hint="Without the network only what was fetched before can be used.",
        )
    meter = Meter(shown(handle), report, on_bytes)
    with tempfile.TemporaryDirectory(dir=scratch) if scratch else store.scratch() as folder:
        # Once for all questions: in a terminal each answer of Airflow takes seconds.
        asked_once = cache(credential or from_environment)
        context = Context(project, Path(folder), report, asked_once)
        revision = revision or source.pin(context)
        key = source.key(revision)
        known = store.recall(key)
        if not known:
            with journal(store, key, report) as notes, store.session():
                known = store.recall(key)  # if there was somebody to wait for, it is there now
                if not known:
                    listed = list(source.files(revision, context))
                    files = _bring(listed, store, notes, meter, limits)
                    found = _check(store, files, allow)
                    origin = {"handle": handle, "revision": revision}
                    manifest = store.put_manifest(files, origin)
                    _note_formats(store, manifest, allow, found)
                    store.remember(key, manifest)
                notes.done()
    manifest = known or manifest
    formats = _formats(store, manifest, allow)
    if source.pinned is None and store.recall(asked) != manifest:
        store.remember(asked, manifest)
    return Fetched(handle, revision, manifest, bool(known), formats)


def _bring(
    listed: Sequence[Remote | Local | Stream],
    store: Store,
    notes: Journal,
    meter: Meter,
    limits: Limits,
) -> list[File]:
    """All files of a source in the store, with their paths in the tree."""
    _check_paths([file.path for file in listed if not (isinstance(file, Remote) and file.unpack)])
    local = [file for file in listed if isinstance(file, Local)]
    remote = [file for file in listed if isinstance(file, Remote)]
    files: list[File] = []
    with ThreadPoolExecutor(_STORING) as pool:
        files += pool.map(partial(_put, store), local)
    files += [pour(file, store, meter, limits) for file in listed if isinstance(file, Stream)]
    blobs = _receive(remote, store, notes, meter, limits)
    for file in remote:
        blob = blobs[file.path]
        if file.unpack:
            files += unpack(blob, file.path, store, meter.report)
        else:
            files.append(File(path=file.path, executable=file.executable, **blob.model_dump()))
    if not files:
        raise SourceError("the source has no files", hint="Is the address right?")
    _check_paths([file.path for file in files])
    return files


def _receive(
    remote: Sequence[Remote], store: Store, notes: Journal, meter: Meter, limits: Limits
) -> dict[str, Blob]:
    """What is behind each remote file, by its path; what is in the store is not fetched again."""
    blobs: dict[str, Blob] = {}
    wanted: dict[str, list[Remote]] = {}
    for file in remote:
        meter.expect(file.size or 0, files=1)
        if blob := _there(file, store, notes):
            blobs[file.path] = blob
            meter.found(blob.size)
            meter.finished()
        else:  # equal files are fetched once
            wanted.setdefault(file.digest or f"path {file.path}", []).append(file)

    def arrived(file: Remote, blob: Blob) -> None:
        equal = wanted[file.digest or f"path {file.path}"]
        for other in equal:
            blobs[other.path] = blob
            notes.note(other, blob)
        meter.found(blob.size * (len(equal) - 1))
        meter.finished(len(equal))

    transfer([equal[0] for equal in wanted.values()], store, meter, limits, arrived)
    if remote:
        meter.end()
    return blobs


def _there(file: Remote, store: Store, notes: Journal) -> Blob | None:
    blob = notes.blob(file)
    if blob is None and file.size is not None and (file.digest or "").startswith("sha256:"):
        blob = Blob(digest=str(file.digest), size=file.size)
    if blob is None:
        return None
    one = Manifest(files=(File(path="x", **blob.model_dump()),))
    return blob if store.has(one) else None


def _put(store: Store, local: Local) -> File:
    blob = store.put_file(local.file)
    if local.digest not in (None, blob.digest):
        raise SourceError(f"{local.path} changed while it was being read")
    return File(path=local.path, executable=local.executable, **blob.model_dump())


def _check(store: Store, files: Iterable[File], allow: frozenset[str]) -> dict[str, str]:
    return check(((file.path, partial(store.open, file)) for file in files), allow=allow)


def _formats(store: Store, manifest: Manifest, allow: frozenset[str]) -> dict[str, str]:
    """What the files of a tree are; looked up where the same was asked before."""
    if note := store.recall(_question(manifest, allow)):
        known: dict[str, str] = json.loads(note.origin["formats"])
        return known
    found = _check(store, manifest.files, allow)
    _note_formats(store, manifest, allow, found)
    return found


def _note_formats(
    store: Store, manifest: Manifest, allow: frozenset[str], found: dict[str, str]
) -> None:
    with store.session():
        origin = {"about": manifest.digest, "formats": json.dumps(found)}
        store.remember(_question(manifest, allow), store.put_manifest([], origin))


def _question(manifest: Manifest, allow: frozenset[str]) -> str:
    """Another version may see more in the same files."""
    return f"formats of {manifest.digest} by {version('tracklayer')} with {sorted(allow)}"


def _check_paths(paths: Sequence[str]) -> None:
    """A tree has each path once, none leads out of it, and no file is a folder too."""
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    seen: set[str] = set()
    for path in paths:
        parts = path.split("/")
        if {"", ".", ".."} & set(parts) or "\0" in path:
            raise SourceError(f"{path!r} cannot be the path of a file in a tree")
        if path in seen:
            raise SourceError(f"the source lists {path!r} twice")
        if path in folders:
            raise SourceError(f"{path!r} is a file of the source, and a folder too")
        seen.add(path)
