"""``kaggle://datasets/owner/name@version``, models and competitions: files of Kaggle.

Asked as Kaggle's own client asks, but not by it: that one looks for credentials when it is
imported and may end the process, waits for ever, and unpacks what it gets without any care.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import httpx
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import check_redirect, without_login
from tracklayer.sources.api import Api
from tracklayer.sources.protocol import Context, Remote

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_CREDENTIAL = "the Airflow connection tracklayer_kaggle, or KAGGLE_USERNAME and KAGGLE_KEY"
_GOOD = 60.0  # seconds for which a signed address is used
_PAGE = 200  # files a page; the client asks for 20 if it is not told


class _Kind(NamedTuple):
    """How Kaggle calls things: the parts of a handle, a service and its methods, an archive."""

    parts: tuple[str, ...]
    service: str
    about: str
    version: str
    download: str
    archive: str


_KINDS = {
    "datasets": _Kind(
        ("ownerSlug", "datasetSlug"),
        "datasets.DatasetApiService",
        "GetDataset",
        "datasetVersionNumber",
        "DownloadDataset",
        "zip",
    ),
    "models": _Kind(
        ("ownerSlug", "modelSlug", "framework", "instanceSlug"),
        "models.ModelApiService",
        "GetModelInstance",
        "versionNumber",
        "DownloadModelInstanceVersion",
        "tar.gz",
    ),
    "competitions": _Kind(
        ("competitionName",),
        "competitions.CompetitionApiService",
        "ListDataFiles",
        "",
        "DownloadDataFiles",
        "zip",
    ),
}


class _About(BaseModel):
    """Of a data set or a model's variation."""

    version: int = Field(
        ge=1, validation_alias=AliasChoices("currentVersionNumber", "versionNumber")
    )


class _File(BaseModel):
    name: str
    size: int = Field(0, validation_alias="totalBytes")
    created: str = Field("", validation_alias="creationDate")


class _Page(BaseModel):
    """Of the list of a competition's files; ``token`` asks for the next one."""

    files: list[_File] = []
    token: str | None = Field(None, validation_alias="nextPageToken")


_T = TypeVar("_T", bound=BaseModel)


class _Signed:
    """A signed address, renewed after a while: it is good for long enough to be used for the many
    requests of a large file, and Kaggle counts who asks for one."""

    def __init__(self, sign: Callable[[], str]) -> None:
        self._sign, self._lock = sign, threading.Lock()
        self._url, self._until = "", 0.0

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() > self._until:
                self._url, self._until = self._sign(), time.monotonic() + _GOOD
            return self._url


@dataclass(frozen=True)
class KaggleSource:
    """A version of a data set or of a model's variation, or the files of a competition.

    Kaggle sends no digests: what comes first is what is recorded. Competitions have no versions
    either: they are pinned by a digest over names, sizes and dates of their files.
    """

    kind: str
    names: tuple[str, ...]
    version: int | None = None

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``kaggle://datasets/owner/name[@n]``, ``kaggle://models/owner/model/framework/variation
        [@n]`` or ``kaggle://competitions/name``."""
        address = handle.removeprefix("kaggle:").removeprefix("//")
        match = re.fullmatch(rf"(\w+)((?:/{_NAME})+)(?:@([1-9]\d{{0,8}}))?", address)
        kind = _KINDS.get(match[1]) if match else None
        names = tuple(match[2][1:].split("/")) if match else ()
        if (
            not match
            or not kind
            or len(names) != len(kind.parts)
            or (match[3] and not kind.version)
        ):
            raise SourceError(
                f"{without_login(handle)!r} is not something of Kaggle's",
                hint="Write kaggle://datasets/owner/name@3, kaggle://competitions/name (without a "
                "version) or kaggle://models/owner/model/framework/variation@1.",
            )
        return cls(match[1], names, int(match[3]) if match[3] else None)

    @property
    def pinned(self) -> str | None:
        """The version, if the handle names one."""
        return str(self.version) if self.version else None

    def pin(self, context: Context) -> str:
        """The current version; of a competition the digest of its list of files."""
        with self._api(context) as api:
            if not self._kind.version:
                context.report(f"{self._shown} has no versions: pinned by the list of its files")
                return self._listing(api)
            about = self._call(api, {}, _About)
        context.report(f"{self._shown} is at version {about.version} now")
        return str(about.version)

    def key(self, revision: str) -> str:
        """Name and version."""
        return f"{self._shown}@{revision}"

    def files(self, revision: str, context: Context) -> Iterable[Remote]:
        """All files, in the one archive that Kaggle makes of them."""
        kind = self._kind
        version: dict[str, Any] = {}
        if kind.version:
            version = {kind.version: int(revision)}
        else:
            with self._api(context) as api:
                if self._listing(api) != revision:
                    raise SourceError(
                        f"the files of {self._shown} are not those any more that were pinned",
                        hint="Kaggle keeps no older ones. Run again without the old revision.",
                    )

        def sign() -> str:
            with self._api(context) as api:
                return self._sign(api, version)

        url = _Signed(sign)
        url()  # whoever may not have it is told so at once
        context.report(f"{self._shown}: Kaggle sends no digests; what comes is recorded")
        return [Remote(path=f"{self.names[-1]}.{kind.archive}", url=url, unpack=True)]

    def _listing(self, api: Api) -> str:
        """A digest over name, size and date of each file, page after page."""
        lines: list[str] = []
        asked: dict[str, Any] = {"pageSize": _PAGE}
        while True:
            page = self._call(api, asked, _Page)
            lines += [file.model_dump_json() for file in page.files]
            if not page.token:
                break
            asked["pageToken"] = page.token
        if not lines:
            raise SourceError(f"{self._shown} has no files")
        listing = "\n".join(sorted(lines))
        return f"list-sha256:{hashlib.sha256(listing.encode()).hexdigest()}"

    def _sign(self, api: Api, version: dict[str, Any]) -> str:
        """An address from which the archive can be had for a while."""
        answer = self._ask(api, self._kind.download, version)
        if answer.next_request is None:
            raise SourceError(f"{self._shown}: {api.endpoint} names no place to download from")
        url = str(answer.next_request.url)
        check_redirect(api.endpoint, url)
        return url

    def _call(self, api: Api, asked: dict[str, Any], shape: type[_T]) -> _T:
        answer = self._ask(api, self._kind.about, asked)
        try:
            return shape.model_validate_json(answer.content)
        except ValidationError:
            raise SourceError(
                f"{api.endpoint} does not speak Kaggle's protocol, or has nothing of {self._shown}",
                hint="Is KAGGLE_API_ENDPOINT right?",
            ) from None

    def _ask(self, api: Api, method: str, asked: dict[str, Any]) -> httpx.Response:
        answer = api.ask("POST", f"/{self._kind.service}/{method}", self._asked | asked)
        if not answer.is_error:
            return answer
        status = answer.status_code
        if status == 401:
            raise SourceError(
                f"{self._shown}: Kaggle wants to know who asks, or does not believe it",
                hint=f"Set a login and its key: {_CREDENTIAL}; or KAGGLE_API_TOKEN alone.",
            )
        if status == 403:
            rules = "its rules" if self.kind == "competitions" else "its conditions, if it has any,"
            raise SourceError(
                f"{self._shown} may not be read by this account, or does not exist",
                hint=f"Accept {rules} at {self._page}, with the account of the credential.",
            )
        if status == 404:
            which = f" in version {self.version}" if self.version else ""
            raise SourceError(
                f"{self._shown} does not exist{which}", hint=f"Is it there? {self._page}"
            )
        raise SourceError(f"{self._shown}: Kaggle answered {status}")

    def _api(self, context: Context) -> Api:
        headers = {}
        if known := context.credential("kaggle"):
            basic = b64encode(f"{known.login}:{known.password}".encode()).decode()
            scheme = f"Basic {basic}" if known.login else f"Bearer {known.password}"
            headers["Authorization"] = scheme
        # The variable is that of kagglehub, Kaggle's other client.
        other = os.environ.get("KAGGLE_API_ENDPOINT")
        endpoint = f"{other.rstrip('/')}/api/v1" if other else "https://api.kaggle.com/v1"
        return Api(endpoint, headers, context.report)

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.kind]

    @property
    def _asked(self) -> dict[str, Any]:
        asked = dict(zip(self._kind.parts, self.names, strict=True))
        if "framework" in asked:
            asked["framework"] = _framework(asked["framework"])
        return asked

    @property
    def _shown(self) -> str:
        return f"kaggle://{self.kind}/{'/'.join(self.names)}"

    @property
    def _page(self) -> str:
        rules = "/rules" if self.kind == "competitions" else ""
        return f"https://www.kaggle.com/{self.kind}/{'/'.join(self.names)}{rules}"


def _framework(name: str) -> str:
    """What Kaggle's API calls a framework: pyTorch is MODEL_FRAMEWORK_PY_TORCH."""
    from kagglesdk.models.types.model_enums import ModelFramework

    prefix = "MODEL_FRAMEWORK_"
    known: dict[str, str] = {
        each.name.removeprefix(prefix).replace("_", ""): each.name for each in ModelFramework
    }
    found = known.get(re.sub("[^A-Z0-9]", "", name.upper()))
    if not found:
        raise SourceError(
            f"Kaggle knows no framework {name!r}",
            hint=f"It knows: {', '.join(sorted(known)).lower()}",
        )
    return found
