"""From a handle in a spec to pinned, verified files in the store.

A handle begins with a scheme; the scheme names a class in ``SCHEMES``, imported when it is needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from tracklayer.errors import SourceError
from tracklayer.store import Manifest, Store

Progress = Callable[[str], None]

SCHEMES = {
    "path": "tracklayer.sources.path:PathSource",
    "https": "tracklayer.sources.https:HttpsSource",
    "http": "tracklayer.sources.https:HttpsSource",  # this machine only, see there
    "git+https": "tracklayer.sources.git:GitSource",
    "git+file": "tracklayer.sources.git:GitSource",
}


class Source(Protocol):
    """One handle of one scheme."""

    @classmethod
    def parse(cls, handle: str) -> Self:
        """Read a handle; looks at nothing else.

        :raises SourceError: it is not well formed.
        """

    def pin(self, project: Path) -> str:
        """The revision that the handle means now: a digest or a commit. Uses the network only
        if the handle does not say it.

        :raises SourceError: there is no such thing.
        """

    def key(self, revision: str) -> str:
        """The name of this content: equal keys always mean equal files."""

    def download(self, revision: str, into: Path, project: Path, on_progress: Progress) -> None:
        """Put the files of a pinned revision into an empty folder, verified.

        :raises SourceError: they cannot be had, or are not what was pinned.
        """


class Fetched(NamedTuple):
    """A source in the store. ``cached``: nothing was downloaded, it was there already."""

    handle: str
    revision: str
    manifest: Manifest
    cached: bool


def parse(handle: str) -> Source:
    """The source of a handle, by its syntax alone.

    :raises SourceError: an unknown scheme, or a handle that its scheme does not accept.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", handle)
    scheme = match[1] if match else ""
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}:" for name in SCHEMES if name != "http")
        near = difflib.get_close_matches(scheme, SCHEMES, 1)
        raise SourceError(
            f"unknown kind of source: {handle!r}",
            hint=(f"Did you mean {near[0]}:? " if near else "") + f"A source begins with: {known}",
        )
    module, _, name = SCHEMES[scheme].partition(":")
    source: type[Source] = getattr(import_module(module), name)
    return source.parse(handle)


def fetch(
    handle: str, *, project: Path, store: Store, on_progress: Progress | None = None
) -> Fetched:
    """Bring a source into the store. What is pinned and stored already needs no network.

    :param project: folder of the project, to which ``path:`` is relative.
    :param on_progress: called now and then with a line for people.
    :raises SourceError: it cannot be resolved, fetched or trusted.
    :raises StoreError: the store is full, damaged or not writable.
    """
    report = on_progress or (lambda _line: None)
    source = parse(handle)
    revision = source.pin(project)
    key = source.key(revision)
    if known := store.recall(key):
        return Fetched(handle, revision, known, cached=True)
    with store.scratch() as folder:
        into = folder / "files"
        into.mkdir()
        source.download(revision, into, project, report)
        manifest = store.put_tree(into, origin={"handle": handle, "revision": revision}, move=True)
    store.remember(key, manifest)
    return Fetched(handle, revision, manifest, cached=False)
