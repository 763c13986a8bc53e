"""``depot://host:port/collection@release``: files of a depot, which speaks neither HTTP nor S3.

A depot answers one line of text a connection: ``<token> RELEASE <collection>`` with the number of
the newest release, ``<token> LIST <collection> <release>`` with a line of JSON a file, and
``<token> SEND <collection> <release> <path>`` with the bytes of a file.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

from tracklayer.errors import SourceError
from tracklayer.sources import Context, Stream

_HANDLE = re.compile(r"depot://([A-Za-z0-9.-]+):(\d+)/([a-z][a-z0-9-]*)(?:@(\d+))?")
_PIECE = 1 << 20  # bytes
_SECONDS = 60  # without an answer


@dataclass(frozen=True)
class DepotSource:
    """A release of a collection; without a number, the newest."""

    host: str
    port: int
    collection: str
    release: str | None

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``depot://host:port/collection`` and, to pin it, ``@`` and the number of a release."""
        match = _HANDLE.fullmatch(handle)
        if not match:
            raise SourceError(
                f"{handle!r} is not a handle of a depot",
                hint="Write depot://host:port/collection, and @<release> to pin it.",
            )
        return cls(match[1], int(match[2]), match[3], match[4])

    @property
    def pinned(self) -> str | None:
        """A release never changes."""
        return self.release

    def pin(self, context: Context) -> str:
        """The newest release."""
        return b"".join(self._ask(context, "RELEASE", self.collection)).decode().strip()

    def key(self, revision: str) -> str:
        """Which depot, which collection, which release."""
        return f"depot://{self.host}:{self.port}/{self.collection}@{revision}"

    def files(self, revision: str, context: Context) -> Iterable[Stream]:
        """What the depot lists. Tracklayer calls ``open`` and checks size and digest."""
        listing = b"".join(self._ask(context, "LIST", self.collection, revision))
        for entry in map(json.loads, listing.splitlines()):
            yield Stream(
                path=entry["path"],
                open=partial(self._ask, context, "SEND", self.collection, revision, entry["path"]),
                size=entry["size"],
                digest=f"sha256:{entry['sha256']}",
            )

    def _ask(self, context: Context, *words: str) -> Iterator[bytes]:
        """The answer in pieces. A connection that breaks is an OSError, and we are called again."""
        login = context.credential("depot")
        token = login.password if login else "nobody"
        with socket.create_connection((self.host, self.port), timeout=_SECONDS) as connection:
            connection.sendall(" ".join((token, *words)).encode() + b"\n")
            status = connection.recv(1)
            if status == b"-":
                raise SourceError(
                    f"{self.key(words[2] if words[2:] else 'newest')}: the depot refuses it",
                    hint="Is the name right, and does the Airflow connection have its token?",
                )
            while data := connection.recv(_PIECE):
                yield data
