"""The way of one gRPC call: to a server that is up, and its answer back."""

from __future__ import annotations

import asyncio
import time

import grpc

from tracklayer.gateway.choice import Choice
from tracklayer.gateway.grpc_links import BROKEN, LATER, Fate, Links, Metadata, Reply, listened_on
from tracklayer.gateway.live import LiveVersion
from tracklayer.gateway.table import Place
from tracklayer.gateway.usage import Usage

_ABANDONED = Reply(grpc.StatusCode.CANCELLED)


class Call:
    """One call to a version, or to another when a version on trial fails on it.

    What it promises is what :class:`tracklayer.gateway.exchange.Exchange` promises for HTTP; only
    that a message is always here as a whole, so that any can be sent again.
    """

    def __init__(self, links: Links, usage: Usage, place: Place, *, caller: str) -> None:
        self._links = links
        self._usage = usage
        self._project = place.live.project
        self._caller = caller
        self._now = asyncio.get_running_loop().time
        self._started = time.perf_counter()
        self._choice = Choice(place.live, place.pinned, self._now())

    @property
    def version(self) -> int:
        """Who was asked last."""
        return self._choice.version.number

    async def answer(self, method: str, data: bytes, metadata: Metadata, seconds: float) -> Reply:
        """Ask until somebody answers; counted however it ends.

        :param seconds: that one server may take.
        """
        reply = _ABANDONED
        try:
            reply = await self._ask(method, data, metadata, seconds)
            return reply
        finally:
            self._choice.release()
            self._count(reply.status)
            self._usage.add(
                (self._caller, self._project, self.version),
                failed=reply.failed,
                received=len(data),
                sent=len(reply.data),
                seconds=self._elapsed(),
            )

    async def _ask(self, method: str, data: bytes, metadata: Metadata, seconds: float) -> Reply:
        choice = self._choice
        while True:
            backend = choice.next()
            reply = await self._links.ask(backend, method, data, metadata, seconds)
            if reply.fate in (Fate.BUSY, Fate.UNSENT):
                backend.mark_down(self._now())
                if choice.has_next:
                    continue
            if reply.fate is Fate.UNSENT:
                version = choice.version
                if not choice.go_elsewhere():
                    return _nobody(version, self._project)
                version.stats.add(BROKEN, 0.0)
            elif reply.failed and reply.fate is not Fate.LATE and choice.on_trial:
                self._count(reply.status)
                self._started = time.perf_counter()
                choice.fall_back()
            else:
                return reply

    def _count(self, status: int) -> None:
        self._choice.version.stats.add(status, self._elapsed())

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started


def _nobody(version: LiveVersion, project: str) -> Reply:
    message = "no server of this project answers now"
    if any(listened_on(server.path) for server in version.backends):
        message = (
            f"the servers of {project} version {version.number} answer HTTP only; where that "
            "lasts, they were started without gRPC: deploy the version anew"
        )
    return Reply(grpc.StatusCode.UNAVAILABLE, b"", message, ((LATER, "1000"),))
