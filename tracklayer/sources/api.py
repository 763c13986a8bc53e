"""Questions to a hub's HTTP API: with time limits, tries, and no secret for anybody else."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Self

import httpx

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import loopback, same_origin, shown, split
from tracklayer.sources.connections import certificates
from tracklayer.sources.http import wait_asked_for
from tracklayer.sources.protocol import Limits, Progress

_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_DEFAULTS = Limits()


class Api:
    """A hub's API for the time of a ``with`` block.

    :param endpoint: ``https://host[/path]``; plain ``http:`` is accepted from this machine alone.
    :param headers: sent with each question, and to the endpoint's own origin alone.
    :param report: takes a line when a question has to be asked again.
    :raises SourceError: the endpoint is no such address.
    """

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        report: Progress,
        limits: Limits = _DEFAULTS,
    ) -> None:
        host = split(endpoint).hostname or ""
        self.endpoint, self._report, self._limits = endpoint.rstrip("/"), report, limits
        self._client = httpx.Client(
            headers={"User-Agent": "tracklayer", **headers},
            timeout=httpx.Timeout(limits.stall, connect=limits.connect),
            verify=certificates(),
            # What is for this machine is not shown to a proxy.
            mounts={f"all://{host}": None} if loopback(host) else None,
        )

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, method: str, url: str, json: Mapping[str, Any] | None = None) -> httpx.Response:
        """The answer, also one that refuses: what it means, the caller knows.

        A redirect is followed within the endpoint's origin, where the method stays what it is; any
        other is the answer.

        :param url: below the endpoint, or a whole one of its origin.
        :raises SourceError: no answer after all tries, or a question to another origin.
        """
        url = url if "://" in url else f"{self.endpoint}{url}"
        for _ in range(self._limits.redirects + 1):
            if not same_origin(self.endpoint, url):
                raise SourceError(f"{self.endpoint} sends us on to {shown(url)}: not followed")
            answer = self._try(method, url, json)
            following = answer.next_request
            if not following or following.method != method:
                return answer
            if not same_origin(self.endpoint, str(following.url)):
                return answer
            url = str(following.url)
        raise SourceError(f"{shown(url)} redirects more than {self._limits.redirects} times")

    def _try(self, method: str, url: str, json: Mapping[str, Any] | None) -> httpx.Response:
        limits, why, after = self._limits, "", 0.0
        for number in range(1, limits.tries + 1):
            try:
                answer = self._client.request(method, url, json=json)
            except httpx.HTTPError as error:
                why, after = str(error) or type(error).__name__, 0.0
                if "CERTIFICATE_VERIFY_FAILED" in why:
                    raise SourceError(f"{shown(url)} is not trusted: {why}") from None
            else:
                if answer.status_code not in _AGAIN:
                    return answer
                why, after = (
                    f"the server answered {answer.status_code}",
                    wait_asked_for(answer.headers),
                )
            if number == limits.tries or after > limits.pause:
                break
            pause = max(after, limits.backoff * 2 ** (number - 1))
            self._report(f"{shown(url)}: {why}; again in {pause:.1f} s")
            time.sleep(pause)
        wait = f", to be asked again in {after:.0f} s" if after else ""
        raise SourceError(
            f"{shown(url)} gave no answer (try {number}): {why}{wait}",
            hint="Is the address right, and can this machine reach it?",
        )


class _NoHeaders(logging.Filter):
    """Drops what httpcore logs of an answer's headers: one of them may be a signed address."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "receive_response_headers.complete" not in record.getMessage()


logging.getLogger("httpcore.http11").addFilter(_NoHeaders())
