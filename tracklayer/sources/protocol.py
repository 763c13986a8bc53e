"""What a source is: a handle, a pinned revision, and the files that it means."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Credential:
    """What opens a door: a login and a password or token, and what else the service wants."""

    login: str = ""
    password: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


Credentials = Callable[[str], Credential | None]


def from_environment(kind: str) -> Credential | None:
    """What the variables of a service's own tool hold, if they are set.

    Nothing for S3 and git: their libraries look into more than variables, and do so themselves.
    """
    value = os.environ.get
    if kind == "huggingface" and (token := value("HF_TOKEN") or value("HUGGING_FACE_HUB_TOKEN")):
        return Credential(password=token)
    if kind == "kaggle":
        if token := value("KAGGLE_API_TOKEN"):
            return Credential(password=token)
        if (login := value("KAGGLE_USERNAME")) and (key := value("KAGGLE_KEY")):
            return Credential(login, key)
    return None


@dataclass
class Context:
    """What a source may use while it is pinned or listed.

    :param project: folder of the project, to which ``path:`` is relative.
    :param scratch: a private folder, gone afterwards.
    :param report: takes a line for people.
    :param credential: the credential of a kind of service ("huggingface", "kaggle", "s3", "git").
    """

    project: Path
    scratch: Path
    report: Progress = lambda _line: None
    credential: Credentials = from_environment


@dataclass(frozen=True)
class Remote:
    """A file behind a URL.

    :param path: where it belongs in the tree, with forward slashes.
    :param url: its address; a callable gives a fresh one for each request (signed addresses).
    :param size: bytes, if known.
    :param digest: ``sha256:<hex>``, ``git-sha1:<hex>`` (the name of a git blob) or ``md5:<hex>``.
    :param headers: sent to the origin of ``url`` alone, never after a redirect to another.
    :param unpack: an archive: its members are the files, in the folder where it would lie.
    """

    path: str
    url: str | Callable[[], str] = field(repr=False)
    size: int | None = None
    digest: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    executable: bool = False
    unpack: bool = False


@dataclass(frozen=True)
class Local:
    """A file that lies on the disk: in the project, or in the context's scratch folder.

    :param digest: ``sha256:<hex>``, if it must be that.
    """

    path: str
    file: Path
    executable: bool = False
    digest: str | None = None


@dataclass(frozen=True)
class Stream:
    """A file that the source itself brings, by a protocol of its own.

    :param open: gives its bytes from the beginning, at each call. An :class:`OSError` on the way
        makes us call it again, a :class:`~tracklayer.errors.SourceError` ends the fetch.
    :param size: bytes, if known.
    :param digest: ``sha256:<hex>`` or ``md5:<hex>``, if it must be that.
    """

    path: str
    open: Callable[[], Iterable[bytes]] = field(repr=False)
    size: int | None = None
    digest: str | None = None
    executable: bool = False


class Source(Protocol):
    """One handle of one scheme."""

    @classmethod
    def parse(cls, handle: str) -> Self:
        """Read a handle; looks at nothing else.

        :raises SourceError: it is not well formed.
        """

    @property
    def pinned(self) -> str | None:
        """The revision, if the handle itself says it: a commit, a digest, a version."""

    def pin(self, context: Context) -> str:
        """The revision that the handle means now; may use the network.

        :raises SourceError: there is no such thing, or it cannot be asked for.
        """

    def key(self, revision: str) -> str:
        """The name of this content: equal keys always mean equal files."""

    def files(self, revision: str, context: Context) -> Iterable[Remote | Local | Stream]:
        """The files of a pinned revision. Those that are remote are fetched and verified for you.

        :raises SourceError: they cannot be listed, or are not what was pinned.
        """


class Transfer(NamedTuple):
    """How far a fetch is: bytes and files, done and in all as far as known; bytes a second."""

    done: int
    total: int
    files_done: int
    files_total: int
    rate: float


@dataclass(frozen=True)
class Limits:
    """What a fetch may take, and how hard it tries.

    :param size: bytes of one file.
    :param seconds: of a whole fetch, and one more for each ``slowest`` bytes.
    :param stall: seconds without a byte, or below ``trickle`` bytes a second, before a connection
        is given up.
    :param tries: attempts in a row without any progress.
    :param backoff: seconds before the second try; doubles each time, up to ``pause``, which is
        also the longest that a server may ask us to wait.
    :param connections: at the same time; ``streams`` of them on parts of large files.
    """

    size: int = 200 << 30
    seconds: float = 3600
    slowest: int = 100_000
    stall: float = 60
    trickle: int = 1000
    connect: float = 20
    tries: int = 6
    backoff: float = 0.5
    pause: float = 120
    redirects: int = 5
    connections: int = 16
    streams: int = 8
