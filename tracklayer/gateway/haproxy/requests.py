"""What HAProxy says of each request that it passed on by itself, counted as the rest is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from tracklayer.access import ANONYMOUS
from tracklayer.gateway.stats import VersionStats
from tracklayer.gateway.usage import Usage

_EVERY = 0.05
"""Seconds between two looks at what has come."""

_FIELDS = 13
_WHOLE = "whole"
"""The server that stands for our own proxy, which counts for itself."""

_MARK = "mark"

_FRAME = 33
"""Bytes of a "200 OK" in chunks, as HAProxy counts them, but for its fields and its body."""

_GONE = 499
"""Stands for a status when the caller left before its answer was whole."""


class Requests(asyncio.Protocol):
    """The connection on which HAProxy writes a line a request.

    :param stats: project -> version -> counters.
    :param on_mark: gets the word of each mark: all lines before it were counted.
    """

    def __init__(
        self,
        stats: Mapping[str, dict[int, VersionStats]],
        usage: Usage,
        on_mark: Callable[[str], None],
    ) -> None:
        self._stats = stats
        self._usage = usage
        self._on_mark = on_mark
        self._rest = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not of its class

    def data_received(self, data: bytes) -> None:
        # Many lines at a time: to be woken for each would cost more than the line.
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(_EVERY, self._go_on)
        self.take(data)

    def take(self, data: bytes) -> None:
        """Count the requests whose lines are whole."""
        *lines, self._rest = (self._rest + data.decode("latin-1")).split("\n")
        for line in lines:
            self._count(line.split(" "))

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _count(self, fields: list[str]) -> None:
        if fields[0] == _MARK:
            self._on_mark(fields[1])
            return
        if len(fields) != _FIELDS or fields[2] == "-" or fields[11] == _WHOLE:
            return  # about a server's health, or nothing that was passed on here
        status, method, project, version, caller, came, *sizes, begin, end, _, ending = fields
        code = int(status)
        if method == "HEAD" or code in (204, 304):
            sent = 0
        elif ending == "--" and sizes[0].isdecimal():
            sent = int(sizes[0])
        else:
            sent = _sent(*sizes)
        if ending.startswith("C"):
            code = _GONE
        elif code < 0 or ending == "SD":
            code = 0
        seconds = max(0, int(end) - int(begin)) / 1e6
        counted = self._stats[project].get(int(version))
        if counted is not None:
            counted.add(code, seconds)
        self._usage.add(
            (ANONYMOUS if caller == "-" else caller, project, int(version)),
            failed=code >= 500 or code == 0,
            received=int(came) if came.isdecimal() else 0,
            sent=sent,
            seconds=seconds,
        )


def _sent(length: str, head: str, passed: str) -> int:
    """Bytes of the body of an answer that came in chunks, was broken off, or is HAProxy's own.

    :param length: that its server said it has.
    :param head: bytes of names and values in its head; none if it was short, or HAProxy's own.
    :param passed: bytes of all that came from the server.
    """
    if not head.isdecimal():
        return int(length) if length.isdecimal() else 0
    came = max(0, int(passed) - int(head) - _FRAME)
    return min(came, int(length)) if length.isdecimal() else came
