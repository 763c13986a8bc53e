"""Git's large files: from the pointers in a commit to their content, by the LFS batch API.

https://github.com/git-lfs/git-lfs/tree/main/docs/api
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import httpx

from tracklayer.errors import SourceError
from tracklayer.sources import Local, Progress, Remote
from tracklayer.sources.addresses import check_redirect, same_origin
from tracklayer.sources.api import Api
from tracklayer.sources.git_program import Git

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?P<extensions>(?:ext-[^\n]*\n)*)"
    rb"oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,18})\n?"
)
_LONGEST = 1024  # bytes of a pointer, by its specification
_MEDIA = "application/vnd.git-lfs+json"
_AT_ONCE = 100  # objects in one question, as git-lfs asks
_TERM = 600.0  # seconds for which an answer holds that does not say it


class Pointer(NamedTuple):
    """What a commit has in place of a large file. ``oid`` is the SHA-256 of its content."""

    path: str
    oid: str
    size: int
    executable: bool
    extended: bool


def read_pointer(path: str, file: Path, *, executable: bool) -> Pointer | None:
    """The pointer that a file is, if it is one."""
    if file.stat().st_size > _LONGEST:
        return None
    match = _POINTER.fullmatch(file.read_bytes())
    if not match:
        return None
    oid, size = match["oid"].decode(), int(match["size"])
    return Pointer(path, oid, size, executable, bool(match["extensions"]))


def contents(git: Git, pointers: Sequence[Pointer], report: Progress) -> Iterator[Remote | Local]:
    """What the pointers stand for.

    :raises SourceError: the server has no large files, not these, or not for this login.
    """
    for pointer in pointers:
        if pointer.extended:
            raise SourceError(
                f"{pointer.path} is a large file that only an extension of git-lfs can read",
                hint="Commit it without the extension, or leave #lfs=true out to get its pointer.",
            )
    if urlsplit(git.url).scheme == "file":
        yield from (_on_disk(git.url, pointer) for pointer in pointers)
        return
    server = _Server(git, report)
    for start in range(0, len(pointers), _AT_ONCE):
        for download in server.downloads(pointers[start : start + _AT_ONCE]):
            pointer = download.pointer
            yield Remote(
                path=pointer.path,
                url=download,
                size=pointer.size,
                digest=f"sha256:{pointer.oid}",
                headers=download.headers,
                executable=pointer.executable,
            )


def _on_disk(url: str, pointer: Pointer) -> Local:
    oid = pointer.oid
    root = Path(unquote(urlsplit(url).path))
    for folder in (root / ".git", root):
        file = folder / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        if file.is_file():
            with file.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == oid:
                    return Local(pointer.path, file, pointer.executable)
            raise SourceError(f"{pointer.path}: {file} is damaged: it is not sha256:{oid}")
    raise _missing(url, pointer, "the repository does not have it")


class _Download:
    """The address of one object; it is asked for again when its term is over."""

    def __init__(self, server: _Server, pointer: Pointer, entry: dict[str, Any]) -> None:
        self.server, self.pointer = server, pointer
        self.headers: dict[str, str] = {}
        self._take(entry)

    def __call__(self) -> str:
        if time.monotonic() > self.until:
            self._take(self.server.ask([self.pointer])[0])
        return self.href

    def _take(self, entry: dict[str, Any]) -> None:
        action = (entry.get("actions") or {}).get("download")
        if not action:
            why = (entry.get("error") or {}).get("message") or "the server does not have it"
            raise _missing(self.server.git.url, self.pointer, why)
        api = self.server.api
        self.href, self.until = str(action["href"]), _until(action)
        check_redirect(api, self.href)
        headers = _headers(action)
        if not headers and not entry.get("authenticated") and same_origin(api, self.href):
            headers = self.server.headers
        self.headers |= headers


class _Server:
    """The LFS server of a remote."""

    def __init__(self, git: Git, report: Progress) -> None:
        self.git, self.report = git, report
        self.until = -math.inf
        self.headers: dict[str, str] = {}

    def downloads(self, pointers: Sequence[Pointer]) -> Iterator[_Download]:
        """Where the objects can be had, in the order of the pointers."""
        for pointer, entry in zip(pointers, self.ask(pointers), strict=True):
            yield _Download(self, pointer, entry)

    def ask(self, pointers: Sequence[Pointer]) -> list[dict[str, Any]]:
        """What the server says about each object; an empty answer where it says nothing."""
        if time.monotonic() > self.until:
            self._discover()
        sizes = {pointer.oid: pointer.size for pointer in pointers}
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": oid, "size": size} for oid, size in sizes.items()],
        }
        url = f"{self.api}/objects/batch"
        response = self._post(url, question)
        if response.status_code == 401 and "Authorization" not in self.headers:
            login = ":".join(self.git.login(url)).encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
            response = self._post(url, question)
        if not response.is_success:
            raise SourceError(
                f"{url} answered {response.status_code}",
                hint="Has the repository large files (LFS), and may this login read them?",
            )
        try:
            found = {str(entry["oid"]): dict(entry) for entry in response.json()["objects"]}
        except (ValueError, TypeError, KeyError) as error:
            raise _not_spoken(url) from error
        return [found.get(pointer.oid, {}) for pointer in pointers]

    def _discover(self) -> None:
        """Find the server: below the repository, or where ssh says."""
        if urlsplit(self.git.url).scheme == "ssh":
            said = self.git.remote("git-lfs-authenticate", "download")
            try:
                answer = json.loads(said)
                self.api, self.headers = str(answer["href"]).rstrip("/"), _headers(answer)
                self.until = _until(answer)
            except (ValueError, TypeError, KeyError) as error:
                raise _not_spoken(f"git-lfs-authenticate of {self.git.url}") from error
            check_redirect(f"https://{urlsplit(self.git.url).hostname}", self.api)
        else:
            base = self.git.url.rstrip("/")
            self.api = base + ("" if base.endswith(".git") else ".git") + "/info/lfs"
            self.until = math.inf

    def _post(self, url: str, question: dict[str, Any]) -> httpx.Response:
        headers = {"Accept": _MEDIA, "Content-Type": _MEDIA, **self.headers}
        with Api(self.api, headers, self.report) as api:
            return api.ask("POST", url, question)


def _until(answer: dict[str, Any]) -> float:
    """When an answer is too old, a minute early, by the clock of ``time.monotonic``."""
    term = _TERM
    if seconds := answer.get("expires_in"):
        term = float(seconds)
    elif moment := answer.get("expires_at"):
        with suppress(ValueError):
            term = datetime.fromisoformat(str(moment)).timestamp() - time.time()
    return time.monotonic() + max(0.0, term - 60)


def _headers(answer: dict[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in (answer.get("header") or {}).items()}


def _missing(url: str, pointer: Pointer, why: str) -> SourceError:
    return SourceError(
        f"{pointer.path} of {url}: no large file sha256:{pointer.oid}: {why}",
        hint="Who committed it must push it too: `git lfs push --all <remote>`.",
    )


def _not_spoken(what: str) -> SourceError:
    return SourceError(
        f"{what} does not answer as a server of large files (LFS) does",
        hint="Leave #lfs=true out to get the pointers, if there are no such files.",
    )
