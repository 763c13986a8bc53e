"""``s3://bucket/folder/``: objects of any store that speaks S3, at the state of one listing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, quote, unquote

from tracklayer.errors import SourceError
from tracklayer.sources import Context, Remote
from tracklayer.sources.addresses import split
from tracklayer.sources.s3_client import connect, explained, home_region

_HANDLE = re.compile(
    r"s3://(?P<bucket>[^/?#]*)(?:/(?P<key>[^?#]*))?(?:\?(?P<options>[^#]*))?(?:#(?P<pin>.*))?"
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PIN = re.compile(r"sha256=([0-9a-fA-F]{64})")
_OPTIONS = {"endpoint", "region", "version"}
_MD5 = re.compile(r"[0-9a-f]{32}")
_PLAIN = {None, "AES256"}  # encryption at rest under which an ETag can be the MD5 of the content
_ASKING = 16  # questions at the same time
_SIGNED_FOR = 3600  # seconds; a transfer that takes longer is signed anew for its next range
_FORM = (
    "Write s3://bucket/folder/ or s3://bucket/key, then if wanted ?endpoint=https://...&region=..."
    " and #sha256=<digest of the listing>."
)


class Listed(NamedTuple):
    """One object of a listing. ``size`` in bytes."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class S3Source:
    """The objects below a folder, or the one object of a key.

    Its revision is a digest over the listing: each object's key, size and ETag. A version of one
    object (``?version=``) is its own revision: S3 never changes it.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    version: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``s3://bucket/key?endpoint=...&region=...&version=...#sha256=...``, percent-encoded."""
        match = _HANDLE.fullmatch(handle)
        if not match or "@" in match["bucket"]:
            shown = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", handle, maxsplit=1)[0])
            raise SourceError(f"{shown!r} carries a user or a password", hint=_FORM)
        if not _BUCKET.fullmatch(match["bucket"]):
            raise SourceError(f"{match['bucket']!r} is not the name of a bucket", hint=_FORM)
        options = dict(parse_qsl(match["options"] or "", keep_blank_values=True))
        pin = _PIN.fullmatch(match["pin"] or "")
        key = unquote(match["key"] or "")
        what = f"s3://{match['bucket']}/{match['key'] or ''}"
        if unknown := sorted(set(options) - _OPTIONS):
            raise SourceError(
                f"{what} has an option that is not known: {unknown[0]}",
                hint=f"Known are: {', '.join(sorted(_OPTIONS))}.",
            )
        if match["pin"] is not None and not pin:
            raise SourceError(f"{what} has a pin that is not #sha256=<64 hex digits>", hint=_FORM)
        if "version" in options and (not key or key.endswith("/") or pin):
            raise SourceError(
                f"{what} has a version, which only one object can have, and no other pin beside it",
                hint=_FORM,
            )
        if options.get("version") == "null":
            raise SourceError(
                f"{what}: null is the version of what the next upload replaces",
                hint="Turn the bucket's versioning on, or pin the listing with #sha256=.",
            )
        if "\0" in key or not all(options.values()):
            raise SourceError(f"{what} has an empty option or a zero byte", hint=_FORM)
        if "endpoint" in options:
            split(options["endpoint"])
        return cls(
            match["bucket"],
            key,
            options.get("endpoint"),
            options.get("region"),
            options.get("version"),
            pin and pin[1].lower(),
        )

    @property
    def pinned(self) -> str | None:
        """The digest of the listing or the version of the object, if the handle has one."""
        if self.version:
            return f"version:{self.version}"
        return f"sha256:{self.digest}" if self.digest else None

    def pin(self, context: Context) -> str:
        """``sha256:<hex>`` over the listing as it is now."""
        if self.pinned:
            return self.pinned
        with explained(self.shown):
            return _digest(self._list(self._connect(context))[1])

    def key(self, revision: str) -> str:
        """Endpoint, bucket, key and what the listing was."""
        return f"s3://{self.bucket}/{quote(self.prefix)}?endpoint={self.endpoint or ''}@{revision}"

    def files(self, revision: str, context: Context) -> Iterable[Remote]:
        """A signed download of each object, bound to the ETag that the listing gave."""
        with explained(self.shown):
            client = self._connect(context)
            folder, listing = self._list(client)
            if not self.version and _digest(listing) != revision:
                raise SourceError(
                    f"{self.shown} does not hold {revision} any more: its listing is now "
                    f"{_digest(listing)} ({len(listing)} objects)",
                    hint="Objects were added, removed or changed since it was pinned.",
                )
            context.report(f"{self.shown}: asking for the checksums of {len(listing)} objects")
            with ThreadPoolExecutor(_ASKING) as pool:
                yield from pool.map(partial(self._remote, client, folder), listing)

    @property
    def shown(self) -> str:
        """The address for people."""
        return f"s3://{self.bucket}/{self.prefix}"

    def _connect(self, context: Context) -> Any:
        credential = context.credential("s3")
        client = connect(credential, self.endpoint, self.region)
        if self.endpoint or self.region:
            return client
        region = home_region(client, self.bucket)
        if region in (None, client.meta.region_name):
            return client
        return connect(credential, None, region)

    def _list(self, client: Any) -> tuple[str, list[Listed]]:
        """What the handle means now: the folder and its objects in the order of their keys."""
        folder = self.prefix
        if folder and not folder.endswith("/"):
            if found := self._single(client):
                return folder.removesuffix(folder.rpartition("/")[2]), [found]
            folder += "/"
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
        listing = [
            Listed(entry["Key"], entry["Size"], entry["ETag"])
            for page in pages
            for entry in page.get("Contents", ())
            if not (entry["Key"].endswith("/") and entry["Size"] == 0)  # made for a folder
        ]
        if not listing:
            raise SourceError(
                f"{self.shown} does not exist, or is an empty folder",
                hint="Keys are case-sensitive, and a folder is named whole: s3://bucket/folder/.",
            )
        return folder, sorted(listing)

    def _single(self, client: Any) -> Listed | None:
        from botocore.exceptions import ClientError

        try:
            found = client.head_object(**self._named(self.prefix))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey") and not self.version:
                return None
            raise
        return Listed(self.prefix, found["ContentLength"], found["ETag"])

    def _remote(self, client: Any, folder: str, entry: Listed) -> Remote:
        url = partial(
            client.generate_presigned_url,
            "get_object",
            Params=self._named(entry.key),
            ExpiresIn=_SIGNED_FOR,
        )
        return Remote(
            path=entry.key.removeprefix(folder),
            url=url,
            size=entry.size,
            digest=self._checksum(client, entry),
            headers={"If-Match": entry.etag},
        )

    def _checksum(self, client: Any, entry: Listed) -> str | None:
        """What the store knows of the content: its SHA-256, else its MD5, if it knows one."""
        if not _MD5.fullmatch(entry.etag.strip('"')):  # uploaded in parts
            return None
        found = client.head_object(**self._named(entry.key), ChecksumMode="ENABLED")
        if found["ETag"] != entry.etag:
            raise SourceError(f"{entry.key!r} of {self.shown} changed while it was being fetched")
        sha256 = found.get("ChecksumSHA256", "-")
        if "-" not in sha256:  # of the parts of an upload, else
            return f"sha256:{base64.b64decode(sha256).hex()}"
        if found.get("ServerSideEncryption") in _PLAIN and "SSECustomerAlgorithm" not in found:
            return f"md5:{entry.etag.strip(chr(34))}"
        return None

    def _named(self, key: str) -> dict[str, str]:
        version = {"VersionId": self.version} if self.version else {}
        return {"Bucket": self.bucket, "Key": key, **version}


def _digest(listing: list[Listed]) -> str:
    lines = "".join(f"{json.dumps(entry)}\n" for entry in listing)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
