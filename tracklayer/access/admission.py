"""Who may ask for what, and how often."""

from __future__ import annotations

import hmac
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

from tracklayer.access.keys import PREFIX, Key, Keys, digest
from tracklayer.errors import PlatformError
from tracklayer.files import mark

log = logging.getLogger(__name__)

_BEARER = b"bearer "
_PREFIX = PREFIX.encode()


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """A request is not let in: the status, why, and the fields of the answer."""

    status: int
    message: str
    headers: dict[str, str]


class _Bucket:
    """A token bucket: ``burst`` requests at once, ``rate`` a second in the long run."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._tokens = float(burst)
        self._filled = time.monotonic()

    def tokens(self) -> float:
        """How many there are now."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return self._tokens

    def take(self) -> float:
        """Take one token: 0, or the seconds until there is one."""
        if self.tokens() < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0


class Admission:
    """The keys as they are in their file at this moment.

    ``renewals`` counts how often they have changed.

    :param closed: a caller needs a key for every project.
    :raises PlatformError: the file is damaged.
    """

    def __init__(self, file: Path, *, closed: bool) -> None:
        self.closed = closed
        self._keys = Keys(file)
        self._seen = mark(self._keys.file)
        self._known: dict[str, Key] = {}
        self._buckets: dict[str, _Bucket] = {}
        self.renewals = 0
        self._read()

    def caller(
        self, authorization: bytes | None, api_key: bytes | None, *, needed: bool
    ) -> Key | None:
        """Whose key a request carries, by its fields ``Authorization`` and ``X-API-Key``.

        :param needed: whether one has to be there.
        :raises Refusal: 401: there is none, or it is not valid.
        """
        presented = _presented(authorization, api_key, any_bearer=needed)
        if presented is None:
            if needed:
                raise _unknown("this needs a key", "")
            return None
        self.renew()
        found = digest(presented)
        key = self._known.get(found)
        if key is None or not hmac.compare_digest(key.digest, found):
            raise _unknown("the key is not valid", ', error="invalid_token"')
        if key.expired(time.time()):
            raise _unknown("the key has expired", ', error="invalid_token"')
        return key

    def all(self) -> list[tuple[Key, float | None]]:
        """All of them, with the requests that each may make at once now; None: without a limit."""
        buckets = {digest: bucket.tokens() for digest, bucket in self._buckets.items()}
        return [(key, buckets.get(key.digest)) for key in self._known.values()]

    def admit(self, key: Key, project: str) -> str:
        """Let a caller's request for a project in, and count it.

        :returns: the caller's name.
        :raises Refusal: 403: another's project. 429: too many requests.
        """
        if not key.opens(project):
            raise Refusal(403, f"this key is not for {project}", {})
        bucket = self._buckets.get(key.digest)
        if bucket is not None and (wait := bucket.take()):
            raise _too_many(key.rate, math.ceil(wait))
        return key.name

    def admitted(self, caller: str, wait: int) -> str:
        """The name of a caller that a proxy in front has let in, and counted.

        :param wait: seconds until the caller may ask again; 0: it may.
        :raises Refusal: 429: it may not.
        """
        if wait:
            rates = (key.rate for key in self._known.values() if key.name == caller)
            raise _too_many(next(rates, None) or 0, wait)
        return caller

    def renew(self) -> None:
        """See what the file says now: a key that was revoked does not open anything any more."""
        state = mark(self._keys.file)
        if state != self._seen:
            self._seen = state
            try:
                self._read()
            except PlatformError as error:
                log.error("the keys stay as they were: %s", error.message)
            else:
                self.renewals += 1

    def _read(self) -> None:
        before, buckets = self._known, self._buckets
        known = {key.digest: key for key in self._keys.all()}
        # One that is as it was goes on with the tokens that it has left.
        self._buckets = {
            key.digest: buckets[key.digest]
            if before.get(key.digest) == key
            else _Bucket(key.rate, key.burst or 1)
            for key in known.values()
            if key.rate is not None
        }
        self._known = known


def carries_key(authorization: bytes | None, *, needed: bool) -> bool:
    """Has the field ``Authorization`` a key, which is nobody's business behind the gateway?"""
    if authorization is None or authorization[:7].lower() != _BEARER:
        return False
    return needed or authorization[7:].lstrip().startswith(_PREFIX)


def _presented(
    authorization: bytes | None, api_key: bytes | None, *, any_bearer: bool
) -> bytes | None:
    """The key in a request. Where none is needed, what others call so is none of ours."""
    if api_key and (any_bearer or api_key.startswith(_PREFIX)):
        return api_key.strip()
    if authorization is not None and carries_key(authorization, needed=any_bearer):
        return authorization[7:].strip()
    return None


def _unknown(message: str, more: str) -> Refusal:
    hint = "send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
    return Refusal(
        401, f"{message}; {hint}", {"WWW-Authenticate": f'Bearer realm="tracklayer"{more}'}
    )


def _too_many(rate: float | None, wait: int) -> Refusal:
    """Of a caller that asks more often than its key allows; ``wait`` in seconds."""
    message = f"this key is for {rate:g} requests a second"
    return Refusal(429, message, {"Retry-After": str(wait)})
