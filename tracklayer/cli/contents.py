"""What is in the store, for people: found by what they would call it, and shown."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tracklayer.cli.output import moment, table
from tracklayer.errors import StoreError
from tracklayer.store import Blob, File, Manifest, Ref, Store

if TYPE_CHECKING:
    from rich.console import RenderableType

Data = dict[str, Any]

_SHOWN = 200  # files of one thing
_DIGITS = 12  # of a digest
_DIGEST = re.compile(f"(?:sha256:)?([0-9a-f]{{{_DIGITS},64}})")
_MODEL = re.compile(
    r"mlflow/[^/]+/([^/]+/artifacts/model/[0-9a-f]{12}"  # of a run of a project
    r"|models/[^/]+/artifacts)"  # what mlflow.<flavor>.log_model has written
)
_RUN = re.compile(r"mlflow/[^/]+/[^/]+")
KINDS = ("sources", "models", "artifacts", "deployments", "runs", "others")


@dataclass
class Found:
    """Something in the store.

    :param name: what it is called: a reference, or the folder of several.
    :param digest: of a tree or an object; None if it is several.
    :param is_tree: the digest is that of a tree.
    :param changed: seconds since the epoch; of a source the last use.
    """

    name: str
    files: tuple[File, ...]
    digest: str | None = None
    is_tree: bool = False
    origin: dict[str, str] = field(default_factory=dict)
    changed: float | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def tree(self) -> str | None:
        """The digest, if it is that of a tree."""
        return self.digest if self.is_tree else None

    def document(self) -> Data:
        """As data for ``--json``."""
        return {
            "name": self.name,
            "digest": self.digest,
            "origin": self.origin,
            "changed": _time(self.changed),
            "size": self.size,
            "files": [file.model_dump() for file in self.files],
        }

    def views(self) -> list[RenderableType]:
        """For a person."""
        head = table("", "")
        head.show_header = False
        rows = {
            "name": self.name,
            "digest": self.digest or "",
            **self.origin,
            "changed": moment(_time(self.changed)),
            "size": f"{size(self.size)} in {len(self.files)} files",
        }
        for key, value in rows.items():
            if value:
                head.add_row(key, value)
        view = table("file", ">size", "digest")
        for file in self.files[:_SHOWN]:
            view.add_row(file.path, size(file.size), short(file.digest))
        more = len(self.files) - _SHOWN
        return [head, "", view, *([f"and {more} more (--json shows all)"] if more > 0 else [])]


def find(store: Store, what: str) -> Found:
    """The one thing that a person means.

    :param what: a reference, the beginning of several, a source's handle, or a digest of a tree
        or an object from its twelfth digit on.
    :raises StoreError: there is none, or there are several.
    """
    if digest := _DIGEST.fullmatch(what):
        return _by_digest(store, digest[1])
    refs = list(store.refs())
    for ref in refs:
        if ref.name == what:
            return _of(ref)
    if below := [ref for ref in refs if ref.name.startswith(what)]:
        return _together(what, below)
    sources = [ref for ref in refs if _origin(ref).get("handle") == what]
    if sources:  # several revisions: the last that was used
        return _of(max(sources, key=lambda ref: ref.changed))
    known = {_origin(ref).get("handle", ref.name) for ref in refs}
    near = difflib.get_close_matches(what, known, 1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise StoreError(
        f"The store has nothing that is called {what!r}.",
        hint=f"{hint}`tracklayer store ls` lists what is there.",
    )


def _by_digest(store: Store, digits: str) -> Found:
    """A tree, or a file of one, by the beginning of its digest."""
    start = f"sha256:{digits}"
    found: dict[str, Found] = {}
    for ref in store.refs():
        if ref.target.digest.startswith(start):
            found.setdefault(ref.target.digest, _of(ref))
        if isinstance(ref.target, Manifest):
            for file in ref.target.files:
                if file.digest.startswith(start):
                    single = file.model_copy(update={"path": posixpath.basename(file.path)})
                    name = f"{ref.name}: {file.path}"
                    found.setdefault(file.digest, Found(name, (single,), file.digest))
    if not found and len(digits) == 64:  # a tree that has no name
        tree = store.manifest(start)
        return Found(start, tree.files, start, True, tree.origin)
    if len(found) != 1:
        count = len(found) or "No"
        hint = "Give more of its digits." if found else "`tracklayer store ls` lists what is there."
        raise StoreError(f"{count} digests in the store begin with {digits}.", hint=hint)
    return found.popitem()[1]


def _of(ref: Ref) -> Found:
    target = ref.target
    if isinstance(target, Manifest):
        return Found(ref.name, target.files, target.digest, True, target.origin, ref.changed)
    file = File(path=posixpath.basename(ref.name), **target.model_dump())
    return Found(ref.name, (file,), target.digest, changed=ref.changed)


def _together(beginning: str, refs: list[Ref]) -> Found:
    """Several references as one folder: the last that all their names share."""
    if len(refs) == 1:
        return _of(refs[0])
    folder = posixpath.commonpath([posixpath.dirname(ref.name) for ref in refs])
    files: list[File] = []
    for ref in refs:
        path = posixpath.relpath(ref.name, folder) if folder else ref.name
        if isinstance(ref.target, Blob):
            files.append(File(path=path, **ref.target.model_dump()))
        else:
            files += [f.model_copy(update={"path": f"{path}/{f.path}"}) for f in ref.target.files]
    return Found(folder or beginning, tuple(files), changed=max(ref.changed for ref in refs))


def handles(store: Store) -> dict[str, str]:
    """Reference to handle, of all sources; of a store with a damaged one, of those before it."""
    found: dict[str, str] = {}
    with suppress(StoreError):  # whoever wants to remove what is damaged need not read it
        for ref in store.refs("sources/"):
            found[ref.name] = _origin(ref).get("handle", "")
    return found


def listing(store: Store) -> dict[str, list[Data]]:
    """All references by kind. Artifacts are many: they are told by run, models by version."""
    groups: dict[tuple[str, str], list[Ref]] = {}
    for ref in store.refs():
        kind, name = _kind(ref.name)
        if kind == "sources" and "handle" not in _origin(ref):
            continue  # a note about one: what its files were found to be
        # A revision has a name of its own beside that of the handle which meant it last.
        groups.setdefault((kind, ref.target.digest if kind == "sources" else name), []).append(ref)
    found: dict[str, list[Data]] = {kind: [] for kind in KINDS}
    for (kind, name), refs in groups.items():
        if kind == "sources":
            one = _of(max(refs, key=lambda ref: ref.changed))
        else:
            one = _together(name, refs)
        row = {
            "name": one.name if kind == "sources" else name,
            "handle": one.origin.get("handle"),
            "revision": one.origin.get("revision"),
            "digest": one.digest,
            "files": len(one.files),
            "size": one.size,
            "changed": _time(one.changed),
        }
        found[kind].append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row["changed"], reverse=True)
    return found


def listing_views(listing: dict[str, list[Data]], usage: Data) -> Iterator[RenderableType]:
    """For a person: a table a kind."""
    for kind, rows in listing.items():
        if not rows:
            continue
        sources = kind == "sources"
        names = ("source", "revision") if sources else (kind, "digest")
        view = table(*names, ">files", ">size", "last used" if sources else "changed")
        for row in rows:
            name = row["handle"] or row["name"]
            mark = row["revision"] if sources else row["digest"]
            count = str(row["files"])
            view.add_row(name, short(mark), count, size(row["size"]), moment(row["changed"]))
        yield view
        yield ""
    used = usage["sealed_bytes"] + usage["plain_bytes"] + usage["draft_bytes"]
    quota = f" of {size(usage['quota'])}" if usage["quota"] else ""
    plain = f", {usage['plain']} of them in plain" if usage["plain"] else ""
    objects = usage["sealed"] + usage["plain"]
    yield f"{size(used)}{quota} used by {objects} files{plain} and {usage['drafts']} downloads."


def _kind(name: str) -> tuple[str, str]:
    """The kind of a reference, and the name under which it is listed."""
    first, _, _ = name.partition("/")
    if model := _MODEL.match(name):
        return "models", model[0]
    if run := _RUN.match(name):
        return "artifacts", run[0]
    return first if first in KINDS else "others", name


def size(count: int) -> str:
    """Bytes for a person: ``1.2 GB``."""
    from rich.filesize import decimal

    return decimal(count)


def short(digest: str | None) -> str:
    """As much of a digest or a commit as tells it from others."""
    return (digest or "").removeprefix("sha256:")[:_DIGITS]


def _origin(ref: Ref) -> dict[str, str]:
    return ref.target.origin if isinstance(ref.target, Manifest) else {}


def _time(changed: float | None) -> datetime | None:
    return None if changed is None else datetime.fromtimestamp(changed, UTC)
