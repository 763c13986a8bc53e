"""``hf://org/model@revision``: files of the Hugging Face Hub, or of another that speaks as it does.

Asked by the hub's documented HTTP API, not by its library: that one waits for ever on a stalled
list, sleeps as long as a server wants, and keeps a cache and a token of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self, TypeVar
from urllib.parse import quote, unquote

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import shown, without_login
from tracklayer.sources.api import Api
from tracklayer.sources.protocol import Context, Remote
from tracklayer.sources.twins import twins

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*")
_TOKEN = "the Airflow connection tracklayer_huggingface or the variable HF_TOKEN"  # noqa: S105


class _Info(BaseModel):
    """Of a repository at a revision."""

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")


class _Large(BaseModel):
    """Of a file in large-file storage: the SHA-256 of its content."""

    oid: str


class _Entry(BaseModel):
    """Of a repository's tree."""

    type: str
    path: str
    size: int
    oid: str
    lfs: _Large | None = None

    @property
    def digest(self) -> str:
        """Of the content. For a large file git has the digest of a pointer only."""
        return f"sha256:{self.lfs.oid}" if self.lfs else f"git-sha1:{self.oid}"


_T = TypeVar("_T")
_INFO = TypeAdapter(_Info)
_PAGE = TypeAdapter(list[_Entry])


@dataclass(frozen=True)
class HuggingFaceSource:
    """A model, a data set or a space at a commit, or at what a branch or tag means now.

    :param kind: ``models``, ``datasets`` or ``spaces``.
    :param include: patterns of the files that are wanted (fnmatch, ``*`` crosses folders).
    """

    kind: str
    name: str
    revision: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``hf://[datasets/|spaces/][org/]name[@revision][?include=pattern&exclude=pattern]``."""
        address, _, query = handle.removeprefix("hf:").removeprefix("//").partition("?")
        place, at, revision = address.rpartition("@")
        parts = (place if at else address).split("/")
        kind = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
        revision = unquote(revision) if at else "main"
        if len(parts) > 2 and all(parts):
            raise SourceError(
                f"{without_login(handle)!r} names more than a repository",
                hint=f"Files are chosen by a pattern: hf://{'/'.join(parts[:2])}?include=<file>",
            )
        if not parts or not all(map(_NAME.fullmatch, parts)) or any(".." in part for part in parts):
            raise SourceError(
                f"{without_login(handle)!r} is not the address of a repository",
                hint="Write hf://org/model@commit, hf://datasets/org/name@commit or hf://spaces/..",
            )
        if not _REVISION.fullmatch(revision) or ".." in revision:
            raise SourceError(
                f"{without_login(handle)!r} has a revision that cannot be one: {revision!r}",
                hint="A revision is a commit, a branch or a tag; main if there is none.",
            )
        chosen: dict[str, list[str]] = {"include": [], "exclude": []}
        for given in filter(None, query.split("&")):
            name, _, pattern = given.partition("=")
            if name not in chosen or not pattern:
                raise SourceError(
                    f"{without_login(handle)!r} asks for what is not known: {given!r}",
                    hint="After the ? may stand include=<pattern> and exclude=<pattern>, with &.",
                )
            # As huggingface_hub has it, a folder means all that is in it.
            pattern = unquote(pattern)
            chosen[name].append(f"{pattern}*" if pattern.endswith("/") else pattern)
        include, exclude = (tuple(sorted(set(found))) for found in chosen.values())
        return cls(kind, "/".join(parts), revision, include, exclude)

    @property
    def pinned(self) -> str | None:
        """The commit, if the handle names one."""
        return self.revision if _COMMIT.fullmatch(self.revision) else None

    def pin(self, context: Context) -> str:
        """The commit that the revision means now."""
        with self._api(context) as api:
            url = f"/api/{self.kind}/{self.name}/revision/{quote(self.revision, safe='')}"
            commit = self._read(api.ask("GET", url), _INFO, context).sha
        context.report(f"{self.revision} of {self._shown} is the commit {commit}")
        return commit

    def key(self, revision: str) -> str:
        """Repository, commit and patterns. A commit is the same on every mirror."""
        chosen = "".join(
            f"&{name}={quote(pattern, safe='')}"
            for name in ("include", "exclude")
            for pattern in getattr(self, name)
        )
        return f"{self._shown}@{revision}?{chosen[1:]}"

    def files(self, revision: str, context: Context) -> Iterable[Remote]:
        """The files that the patterns choose, without twins of safetensors."""
        with self._api(context) as api:
            listed = self._list(api, revision, context)
            chosen = self._choose([entry.path for entry in listed], context)
            base = f"{api.endpoint}/{self._prefix}{self.name}/resolve/{revision}"
            # Everybody may list a gated repository. Whether we may read it, a file's head tells.
            first = api.ask("HEAD", f"{base}/{quote(min(chosen))}")
            if first.status_code in (401, 403):
                raise self._refusal(first, context)
        headers = self._headers(context)
        return [
            Remote(
                path=entry.path,
                url=f"{base}/{quote(entry.path)}",
                size=entry.size,
                digest=entry.digest,
                headers=headers,
            )
            for entry in listed
            if entry.path in chosen
        ]

    def _list(self, api: Api, commit: str, context: Context) -> list[_Entry]:
        url: str | None = f"/api/{self.kind}/{self.name}/tree/{commit}?recursive=true&expand=false"
        found: list[_Entry] = []
        while url:
            page = api.ask("GET", url)
            entries = self._read(page, _PAGE, context)
            found += [entry for entry in entries if entry.type == "file"]
            url = page.links.get("next", {}).get("url")
        return found

    def _choose(self, paths: list[str], context: Context) -> set[str]:
        def matches(path: str, patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(path, pattern) for pattern in patterns)

        chosen = {
            path
            for path in paths
            if matches(path, self.include or ("*",)) and not matches(path, self.exclude)
        }
        if not chosen:
            some = ", ".join(sorted(paths)[:5]) or "none at all"
            raise SourceError(
                f"no file of {self._shown} is chosen by the patterns",
                hint=f"The repository has {len(paths)} files: {some}{', ...' * (len(paths) > 5)}",
            )
        if self.kind == "models" and (left := twins(chosen, self.include)):
            context.report(
                f"{self._shown}: left out, as the same weights are there as safetensors: "
                f"{', '.join(left)} (include=<name> brings one)"
            )
            chosen.difference_update(left)
        return chosen

    def _read(self, answer: httpx.Response, shape: TypeAdapter[_T], context: Context) -> _T:
        if not answer.is_success:
            raise self._refusal(answer, context)
        try:
            return shape.validate_json(answer.content)
        except ValidationError:
            raise SourceError(
                f"{_endpoint()} does not speak the hub's protocol: {answer.url.path}",
                hint="Is HF_ENDPOINT right?",
            ) from None

    def _refusal(self, answer: httpx.Response, context: Context) -> SourceError:
        """What an answer that is no success means to a person."""
        status, code = answer.status_code, answer.headers.get("X-Error-Code", "")
        hub, page = _endpoint(), f"{_endpoint()}/{self._prefix}{self.name}"
        token = context.credential("huggingface")
        if answer.is_redirect:
            return SourceError(
                f"{hub} leads to {shown(answer.headers['Location'])}",
                hint="If that is where the hub is now, name it in HF_ENDPOINT.",
            )
        if code == "GatedRepo" or status == 403:
            who = "the token that is set may not read" if token else "without a token nobody reads"
            then = (
                "with the account of that token; a fine-grained one needs the right to read them"
                if token
                else f"and set a token: {_TOKEN}"
            )
            return SourceError(
                f"{self._shown} is {'gated' if code else 'closed'}: {who} its files",
                hint=f"Accept its conditions at {page}, {then}.",
            )
        if code == "RevisionNotFound":
            return SourceError(
                f"{self._shown} has no revision {self.revision}",
                hint="Give a commit with all its 40 digits, a branch or a tag; slashes as %2F.",
            )
        if status == 401 and token:
            return SourceError(
                f"{hub} does not accept the token that is set",
                hint=f"It may have expired. It is that of {_TOKEN}.",
            )
        if code == "RepoNotFound" or status in (401, 404):
            private = "the token that is set may not read it" if token else f"set a token: {_TOKEN}"
            return SourceError(
                f"{self._shown} does not exist at {hub}, or is private",
                hint=f"If it is private: {private}.",
            )
        return SourceError(f"{self._shown}: {hub} answered {status}")

    def _api(self, context: Context) -> Api:
        return Api(_endpoint(), self._headers(context), context.report)

    def _headers(self, context: Context) -> dict[str, str]:
        token = context.credential("huggingface")
        return {"Authorization": f"Bearer {token.password}"} if token else {}

    @property
    def _prefix(self) -> str:
        return "" if self.kind == "models" else f"{self.kind}/"

    @property
    def _shown(self) -> str:
        return f"hf://{self._prefix}{self.name}"


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
