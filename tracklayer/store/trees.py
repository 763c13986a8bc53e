"""Manifests on the disk."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from tracklayer.errors import StoreError
from tracklayer.store.disk import Disk, explained
from tracklayer.store.manifest import DIGEST, Manifest
from tracklayer.store.objects import digest_of


class Trees:
    """``manifests/<hex>.json``: a file a tree, named by the digest of what is in it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._folder = disk.root / "manifests"

    def path(self, digest: str) -> Path:
        """Where a manifest lies, or would lie.

        :raises StoreError: it is not a digest.
        """
        if not re.match(DIGEST, digest):
            raise StoreError(f"{digest!r} is not a digest; one looks like sha256:<64 hex digits>")
        return self._folder / f"{digest.removeprefix('sha256:')}.json"

    def digests(self) -> list[str]:
        """Of all that are there, in order."""
        return sorted(f"sha256:{path.stem}" for path in self._folder.glob("*.json"))

    def write(self, manifest: Manifest) -> None:
        """Store a manifest."""
        self._disk.write_small(self.path(manifest.digest), manifest.document)

    def read(self, digest: str) -> Manifest:
        """The manifest of a digest.

        :raises StoreError: it is not in the store, or damaged.
        """
        path = self.path(digest)
        with explained(self._disk.root):
            try:
                document = path.read_bytes()
            except FileNotFoundError:
                raise StoreError(
                    f"there is no tree {digest} in the store {self._disk.root}"
                ) from None
        try:
            manifest = Manifest.model_validate_json(document)
        except ValidationError as error:
            raise StoreError(f"{path} is damaged: {error.errors()[0]['msg']}") from error
        if digest_of(document) != digest:
            raise StoreError(f"{path} is damaged: its content is not {digest}")
        return manifest
