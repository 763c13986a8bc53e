"""Who may ask a server that has no gateway in front of it: callers with a key."""

from __future__ import annotations

from pathlib import Path

from tracklayer.access import Admission, Key, Refusal
from tracklayer.errors import PlatformError
from tracklayer.serving.http import Headers, Service
from tracklayer.serving.model import RequestError


class Guard:
    """Lets in who has a key of those in ``file``, as it is at this moment.

    :raises PlatformError: there is no such file, or it is damaged.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise PlatformError(
                f"there are no keys at {file}",
                hint="It is what `tracklayer keys create` writes: `gateway/keys.json` in the home.",
            )
        self._admission = Admission(file, closed=True)

    def key(self, headers: Headers) -> Key:
        """The key that a request carries.

        :raises RequestError: (401) there is none, or it is not valid.
        """
        given = headers.get(b"authorization"), headers.get(b"x-api-key")
        try:
            key = self._admission.caller(*given, needed=True)
        except Refusal as refusal:
            raise _error(refusal) from None
        assert key is not None  # it was needed
        return key

    def admit(self, key: Key, service: Service) -> bytes:
        """Let a caller's request for a model in, and count it; the caller's name.

        :raises RequestError: 403: the key is not for it. 429: too many requests.
        """
        try:
            return self._admission.admit(key, service.name).encode()
        except Refusal as refusal:
            raise _error(refusal) from None


def _error(refusal: Refusal) -> RequestError:
    headers = {name.lower(): value for name, value in refusal.headers.items()}
    return RequestError(refusal.status, refusal.message, headers=headers)
