"""``https://host/file#sha256=<hex>``: one file of the web, trusted by its digest alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self
from urllib.parse import unquote, urlsplit

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import shown, split
from tracklayer.sources.protocol import Context, Remote

_PINNED = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class HttpsSource:
    """A file behind a URL. Plain ``http:`` is for servers on this machine."""

    url: str
    digest: str

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``https://host/path#sha256=<64 hex digits>``."""
        address, _, fragment = handle.partition("#")
        pinned = _PINNED.fullmatch(fragment)
        if not pinned:
            raise SourceError(
                f"{shown(address)} has no digest to trust it by",
                hint="Write https://host/file#sha256=<64 hex digits>; `sha256sum file` prints it.",
            )
        split(address)
        return cls(address, pinned[1].lower())

    @property
    def pinned(self) -> str:
        """The digest of the handle."""
        return f"sha256:{self.digest}"

    def pin(self, context: Context) -> str:  # noqa: ARG002 - the handle says it all
        """The digest of the handle."""
        return self.pinned

    def key(self, revision: str) -> str:
        """Address and digest."""
        return f"{self.url}#{revision}"

    def files(self, revision: str, context: Context) -> Iterable[Remote]:  # noqa: ARG002
        """The one file, under the last part of its address."""
        last = unquote(PurePosixPath(urlsplit(self.url).path).name)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip(".") or "download"
        return [Remote(path=name, url=self.url, digest=revision)]
