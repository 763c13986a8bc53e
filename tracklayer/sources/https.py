"""``https://host/file#sha256=<hex>``: one file of the web, trusted by its digest alone."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import httpx

from tracklayer.errors import SourceError
from tracklayer.sources import Progress

_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_PINNED = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Limits:
    """What a download may take: bytes, seconds in all, seconds without a byte, tries, back-off."""

    size: int = 200 << 30
    seconds: float = 6 * 3600
    stall: float = 60
    tries: int = 6
    backoff: float = 0.5
    redirects: int = 5


@dataclass(frozen=True)
class HttpsSource:
    """A file behind a URL. Plain ``http:`` is for servers on this machine."""

    url: str
    digest: str
    limits: Limits = field(default=Limits())

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``https://host/path#sha256=<64 hex digits>``."""
        address, _, fragment = handle.partition("#")
        pinned = _PINNED.fullmatch(fragment)
        if not pinned:
            raise SourceError(
                f"{_shown(address)} has no digest to trust it by",
                hint="Write https://host/file#sha256=<64 hex digits>; `sha256sum file` prints it.",
            )
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL as error:
            raise SourceError(f"{_shown(address)} is not a URL: {error}") from error
        _check_scheme(url)
        if url.userinfo:
            raise SourceError(
                f"{_shown(address)} carries a user or a password",
                hint="A spec is read by many; a handle must not hold secrets.",
            )
        return cls(address, pinned[1].lower())

    def pin(self, project: Path) -> str:  # noqa: ARG002 - the handle says it all
        """The digest of the handle."""
        return f"sha256:{self.digest}"

    def key(self, revision: str) -> str:
        """Address and digest."""
        return f"{self.url}#{revision}"

    def download(self, revision: str, into: Path, project: Path, on_progress: Progress) -> None:  # noqa: ARG002
        """Stream the file, going on where it broke off if the server can."""
        transfer = _Transfer(self, on_progress)
        with (into / self._name).open("w+b") as stream:
            transfer.run(stream)

    @property
    def _name(self) -> str:
        last = unquote(PurePosixPath(httpx.URL(self.url).path).name)
        return re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip(".") or "download"


class _RetryError(Exception):
    """What may go better at the next try; ``after`` seconds, if the server said so."""

    def __init__(self, why: str, after: float = 0) -> None:
        super().__init__(why)
        self.after = after


class _Transfer:
    """One download: tries, the part that is there, and its digest so far."""

    def __init__(self, source: HttpsSource, on_progress: Progress) -> None:
        self.source, self.limits, self.report = source, source.limits, on_progress
        self.shown = _shown(source.url)
        self.deadline = time.monotonic() + self.limits.seconds
        self.validator: str | None = None
        self.resumed = False
        self.said = 0.0

    def run(self, stream: BinaryIO) -> None:
        timeout = httpx.Timeout(self.limits.stall, connect=min(20, self.limits.stall))
        # Compressed in transit would be other bytes than those of the digest.
        headers = {"Accept-Encoding": "identity", "User-Agent": "tracklayer"}
        with httpx.Client(timeout=timeout, headers=headers) as client:
            self._restart(stream)
            for number in range(1, self.limits.tries + 1):
                try:
                    self._once(client, stream)
                    if self._trusted():
                        return
                except (_RetryError, httpx.TransportError) as error:
                    if number == self.limits.tries or "CERTIFICATE_VERIFY_FAILED" in str(error):
                        raise SourceError(
                            f"{self.shown} could not be fetched (try {number}): {_why(error)}",
                            hint="Is the address right, and can this machine reach it?",
                        ) from error
                    pause = self.limits.backoff * 2 ** (number - 1)
                    pause = max(pause, min(getattr(error, "after", 0), 60))
                    self.report(f"{self.shown}: {_why(error)}; again in {pause:.1f} s")
                    self._check_time(pause)
                    time.sleep(pause)
                else:  # what was resumed did not fit together: once more, from the start
                    self.report(f"{self.shown}: wrong digest after a resumed download; again")
                    self._restart(stream)
            raise SourceError(f"{self.shown} could not be fetched in {self.limits.tries} tries")

    def _restart(self, stream: BinaryIO) -> None:
        stream.seek(0)
        stream.truncate()
        self.hash, self.resumed, self.size = hashlib.sha256(), False, 0

    def _trusted(self) -> bool:
        found = self.hash.hexdigest()
        if found == self.source.digest:
            return True
        if self.resumed:
            return False
        raise SourceError(
            f"{self.shown} is not what was pinned: its digest is sha256:{found}, "
            f"expected sha256:{self.source.digest}",
            hint="The file was changed. Pin the new digest only if you trust who changed it.",
        )

    def _once(self, client: httpx.Client, stream: BinaryIO) -> None:
        url = httpx.URL(self.source.url).copy_with(fragment=None)
        for _ in range(self.limits.redirects + 1):
            headers = {}
            if self.size and self.validator:
                headers = {"Range": f"bytes={self.size}-", "If-Range": self.validator}
            with client.stream("GET", url, headers=headers) as response:
                self._check_peer(url, response)
                if response.next_request is None:
                    self._receive(response, stream)
                    return
                following = response.next_request.url
            check_redirect(self.source.url, str(following))
            url = following
        raise SourceError(f"{self.shown} redirects more than {self.limits.redirects} times")

    def _receive(self, response: httpx.Response, stream: BinaryIO) -> None:
        status = response.status_code
        if status in _AGAIN:
            after = response.headers.get("Retry-After", "")
            raise _RetryError(
                f"the server answered {status}", float(after) if after.isdigit() else 0
            )
        if status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {self.size}-"
        ):
            self.resumed = True
        elif status == 200:
            self._restart(stream)
        elif status in (206, 416):
            self._restart(stream)
            raise _RetryError("the server cannot go on with the download")
        else:
            raise SourceError(
                f"{self.shown}: the server answered {status} {response.reason_phrase}",
                hint="Is the address right, and may everybody read it?",
            )
        tag = response.headers.get("ETag", "")
        strong = tag if tag and not tag.startswith("W/") else None
        self.validator = strong or response.headers.get("Last-Modified")
        expected = self.size + int(response.headers.get("Content-Length") or 0)
        self._check_size(expected, stream)
        for chunk in response.iter_raw():
            self._check_time(0)
            stream.write(chunk)
            self.hash.update(chunk)
            self.size += len(chunk)
            self._check_size(self.size, None)
            self._tell(expected)
        stream.flush()

    def _check_size(self, size: int, stream: BinaryIO | None) -> None:
        if size > self.limits.size:
            raise SourceError(f"{self.shown} is larger than {_mb(self.limits.size)}")
        if stream and size - self.size > (free := shutil.disk_usage(stream.fileno()).free):
            raise SourceError(
                f"{self.shown} has {_mb(size)}, and {_mb(free)} are free on the disk of the store",
                hint="Free some space, or move the store.",
            )

    def _check_time(self, coming: float) -> None:
        if time.monotonic() + coming > self.deadline:
            raise SourceError(f"{self.shown} took longer than {self.limits.seconds:.0f} s")

    def _check_peer(self, url: httpx.URL, response: httpx.Response) -> None:
        """A name may have changed its address after it was checked: look at the one in use."""
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream else None
        if peer and url.host != httpx.URL(self.source.url).host and not _proxied(url):
            _check_hop(self.source.url, str(url), private=_private_address(peer[0]))

    def _tell(self, expected: int) -> None:
        if time.monotonic() > self.said + 1 or self.size == expected:
            self.said = time.monotonic()
            whole = f" of {_mb(expected)}" if expected else ""
            self.report(f"{self.shown}: {_mb(self.size)}{whole}")


def check_redirect(start: str, following: str) -> None:
    """Whether a download that began at ``start`` may go on at ``following``.

    :raises SourceError: it would leave the web for this machine or a private network, or leave TLS.
    """
    url = httpx.URL(following)
    _check_scheme(url)
    _check_hop(start, following, private=_private(url))


def _check_hop(start: str, following: str, *, private: bool) -> None:
    if private and not _private(httpx.URL(start)):
        raise SourceError(
            f"{_shown(start)} redirects to the private address {_shown(following)}",
            hint="A public address must not lead into a private network.",
        )


def _check_scheme(url: httpx.URL) -> None:
    if url.scheme == "https" and url.host:
        return
    if url.scheme == "http" and (url.host == "localhost" or _loopback(url.host)):
        return
    raise SourceError(
        f"{_shown(str(url))} must begin with https://",
        hint="Plain http:// is accepted from this machine alone (localhost, 127.0.0.1).",
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _private_address(address: str) -> bool:
    return not ipaddress.ip_address(address.partition("%")[0]).is_global


def _private(url: httpx.URL) -> bool:
    """Whether any address of the host is not public. A name only a proxy can resolve counts as
    public: there the proxy decides."""
    try:
        return _private_address(url.host)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_private_address(str(entry[4][0])) for entry in found)


def _proxied(url: httpx.URL) -> bool:
    return url.scheme in getproxies() and not proxy_bypass(url.host)


def _shown(url: str) -> str:
    """A URL for people: without what may be secret, the query and the user."""
    plain = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"//[^/@]*@", "//", plain)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
