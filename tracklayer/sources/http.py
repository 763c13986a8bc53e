"""Requests over pooled connections: redirects, what an answer carries, and what goes wrong."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from socket import SHUT_RDWR, socket
from urllib.parse import urljoin
from weakref import WeakSet

from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError, LocationValueError, ProtocolError
from urllib3.exceptions import TimeoutError as TimeoutError_

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import (
    check_redirect,
    private,
    proxy_of,
    same_origin,
    shown,
    split,
)
from tracklayer.sources.connections import BUNDLES, new_manager
from tracklayer.sources.protocol import Limits

_MOVED = {301, 302, 303, 307, 308}
_STEPS = (1 << 16, 1 << 20)  # bytes taken from a connection at once
_QUICK = 0.5  # seconds
_DRAINED = 1 << 16  # bytes of a body that nobody wants, to keep its connection


class Unavailable(Exception):
    """What may go better at the next try; not before ``after`` seconds, if the server said so."""

    def __init__(self, why: str, after: float = 0) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True)
class Place:
    """Where a file is asked for: ``url``, reached from ``start`` by redirects if they differ."""

    start: str = field(repr=False)
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hops: int = 0

    def redirected(self, location: str) -> Place:
        """The next hop. What opens one server's door is not shown to another.

        :raises SourceError: the redirect leads where none may.
        """
        try:
            url = urljoin(self.url, location)
        except ValueError:
            raise SourceError(f"{shown(self.start)} redirects to what is not a URL") from None
        check_redirect(self.start, url)
        headers = self.headers if same_origin(self.start, url) else {}
        return replace(self, url=url, headers=headers, hops=self.hops + 1)


class Client:
    """GET requests that any number of threads may make; connections are kept and used again."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._managers: dict[tuple[str, bool, str | None], PoolManager] = {}
        self._ways: dict[tuple[str, str, str], PoolManager] = {}
        self._live: WeakSet[socket] = WeakSet()
        self._bodies: WeakSet[Body] = WeakSet()
        self._closed = False

    @contextmanager
    def get(
        self, place: Place, headers: Mapping[str, str]
    ) -> Iterator[tuple[BaseHTTPResponse, Place]]:
        """The answer, its body unread, and the place that gave it, after at most five redirects.

        :raises SourceError: the address, a redirect or a certificate cannot be trusted.
        :raises Unavailable: no connection, or no answer in time.
        """
        response: BaseHTTPResponse | None = None
        try:
            with mapped(place.start):
                while True:
                    response = self._request(place, headers)
                    location = response.headers.get("Location")
                    if response.status not in _MOVED or not location:
                        break
                    if place.hops == self._limits.redirects:
                        raise SourceError(
                            f"{shown(place.start)} redirects more than {place.hops} times"
                        )
                    _leave(response)
                    place = place.redirected(location)
            yield response, place
        finally:
            if response is not None:
                _leave(response)

    def body(self, response: BaseHTTPResponse, place: Place) -> Body:
        """The body of an answer, which :meth:`watch` has an eye on."""
        body = Body(response, place.start, self._limits)
        with self._lock:
            self._bodies.add(body)
        return body

    def watch(self) -> None:
        """To be called now and then: gives up what takes too long."""
        with self._lock:
            bodies = list(self._bodies)
        for body in bodies:
            body.watch()

    def close(self) -> None:
        """End all connections; a thread that waits for one of them is woken by an error."""
        with self._lock:
            self._closed = True
            live = list(self._live)
        for connection in live:
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)
        for manager in self._managers.values():
            manager.clear()

    def _opened(self, connection: socket) -> None:
        """Keep in mind a connection that is to be ended by :meth:`close`."""
        with self._lock:
            self._live.add(connection)
            if self._closed:
                raise Unavailable("the fetch has ended")

    def _request(self, place: Place, headers: Mapping[str, str]) -> BaseHTTPResponse:
        # Compressed in transit would be other bytes than those of the digest.
        common = {"Accept-Encoding": "identity", "User-Agent": "tracklayer"}
        return self._manager(place).request(
            "GET",
            place.url.partition("#")[0],
            headers={**common, **place.headers, **headers},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )

    def _manager(self, place: Place) -> PoolManager:
        parts, start = split(place.url), split(place.start)
        ways = (parts.scheme, parts.netloc, start.netloc)
        if known := self._ways.get(ways):
            return known
        proxy = proxy_of(parts)
        guarded = not proxy and not private(start)
        key = (parts.scheme, guarded, proxy)
        with self._lock:
            if key not in self._managers:
                self._managers[key] = new_manager(*key, self._limits, self._opened)
            self._ways[ways] = self._managers[key]
            return self._managers[key]


class Body:
    """What an answer carries, taken in steps that grow while they are quick.

    Large steps cost less, but one could last for ever where a byte comes now and then; so whoever
    waits for the reader calls :meth:`watch`.

    :param url: for errors.
    """

    def __init__(self, response: BaseHTTPResponse, url: str, limits: Limits) -> None:
        self._response, self._url, self._stall = response, url, limits.stall
        self._step = max(1, min(_STEPS[0], int(limits.trickle * limits.stall)))
        self._since: float | None = None
        self._late = False

    def read(self, most: int) -> bytes:
        """So many bytes, or fewer; nothing at the end.

        :raises Unavailable: it broke off, no byte came, or so few that waiting is in vain.
        """
        step = min(most, self._step)
        self._since = begin = time.monotonic()
        try:
            with mapped(self._url):
                data = self._response.read(step)
        except Unavailable:
            if self._late:
                raise Unavailable(f"fewer than {step} bytes in {self._stall:.0f} s") from None
            raise
        self._since = None
        if time.monotonic() < begin + _QUICK:
            self._step = min(2 * self._step, _STEPS[1])
        elif self._step > _STEPS[0]:
            self._step //= 2
        return data

    def watch(self) -> None:
        """Wake the reader with an error if its step takes too long."""
        since = self._since
        if since is not None and time.monotonic() > since + self._stall and not self._late:
            self._late = True
            with suppress(OSError, RuntimeError, ValueError):  # it is at its end just now
                self._response.shutdown()


def wait_asked_for(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: by Retry-After (RFC 9110, 10.2.3), a number or a date,
    or by RateLimit as Hugging Face has it (draft-ietf-httpapi-ratelimit-headers): none left, anew
    in t seconds."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    if anew := re.search(r";\s*r=0;\s*t=(\d+)", headers.get("RateLimit", "")):
        return float(anew[1])
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _now()).total_seconds())


@contextmanager
def mapped(url: str) -> Iterator[None]:
    """Turn what goes wrong on a connection into what to do about it.

    :raises SourceError: a certificate that is not trusted, an address that is none.
    :raises Unavailable: everything else.
    """
    try:
        yield
    except LocationValueError:
        raise SourceError(f"{shown(url)} leads to something that is not a URL") from None
    except (HTTPError, OSError) as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise SourceError(
                    f"{shown(url)}: the server's certificate is not trusted: "
                    f"CERTIFICATE_VERIFY_FAILED, {cause.verify_message}",
                    hint=f"If an authority of your own signed it, name its bundle: {BUNDLES[0]}.",
                ) from None
        # From None: what the library says may hold the whole address.
        raise Unavailable(_why(causes)) from None


def _leave(response: BaseHTTPResponse) -> None:
    """Give the connection back if the body is at its end, or nearly; else close it."""
    with suppress(HTTPError, OSError):
        left = response.length_remaining
        if left is not None and left <= _DRAINED:
            response.drain_conn()
            response.release_conn()
            return
    response.close()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        error = error.__cause__ or (inner if isinstance(inner, BaseException) else None)


def _why(causes: list[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, TimeoutError | TimeoutError_):
            return "no answer in time"
        if isinstance(cause, ProtocolError | HTTPException):
            return "the connection broke off"
    return type(causes[0]).__name__


def _now() -> datetime:
    return datetime.now(UTC)
