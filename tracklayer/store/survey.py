"""Looking over the whole store: is everything right, and how much is it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tracklayer.errors import StoreError
from tracklayer.store.manifest import Blob
from tracklayer.store.objects import Objects
from tracklayer.store.refs import Refs
from tracklayer.store.trees import Trees


class Usage(NamedTuple):
    """Numbers of things, and bytes on the disk."""

    sealed: int
    plain: int
    trees: int
    names: int
    drafts: int
    sealed_bytes: int
    plain_bytes: int
    draft_bytes: int


def usage(objects: Objects, trees: Trees, refs: Refs) -> Usage:
    """Count everything; reads no content."""
    root = objects.root
    sealed, plain, drafts = (
        [path.stat() for path in root.glob(pattern)]
        for pattern in ("sealed/??/*", "objects/??/*", "drafts/*/data")
    )
    return Usage(
        sealed=len(sealed),
        plain=len(plain),
        trees=len(trees.digests()),
        names=len(refs.names()),
        drafts=len(drafts),
        sealed_bytes=sum(found.st_size for found in sealed),
        plain_bytes=sum(found.st_size for found in plain),
        draft_bytes=sum(found.st_blocks * 512 for found in drafts),
    )


def verify(objects: Objects, trees: Trees, refs: Refs) -> Iterator[str]:
    """Read everything; a sentence for each thing that is missing or damaged."""
    yield from objects.verify()
    for digest in trees.digests():
        try:
            files = trees.read(digest).files
        except StoreError as error:
            yield error.message
            continue
        for file in files:
            if not objects.exists(file.digest):
                yield f"{file.digest} is missing: {file.path} of {digest}"
    for name in refs.names():
        try:
            note = refs.read(name)
            if note and isinstance(note.target, Blob) and not objects.exists(note.target.digest):
                yield f"{note.target.digest} is missing: the name {name}"
            elif note and isinstance(note.target, str):
                trees.read(note.target)
        except StoreError as error:
            yield f"the name {name}: {error.message}"
