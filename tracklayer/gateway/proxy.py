"""What the gateway does with a request: let it in, find who answers for it, pass it on."""

from __future__ import annotations

import asyncio
from functools import partial

from tracklayer.access import ANONYMOUS, PLATFORM, Admission, Key, Refusal, carries_key
from tracklayer.gateway.connections import Connection, Work
from tracklayer.gateway.exchange import Exchange, forwarded
from tracklayer.gateway.http1 import CALLER_HEADER, NOT_TO_BACKEND, document
from tracklayer.gateway.metrics import CONTENT_TYPE, exposition
from tracklayer.gateway.passage import Passage
from tracklayer.gateway.request import Request
from tracklayer.gateway.table import Place, Table
from tracklayer.gateway.usage import Usage

_WITHOUT_KEY = NOT_TO_BACKEND | {b"authorization"}


class Proxy:
    """The handler of the public address.

    :param patience: seconds to wait for the next piece of an answer.
    """

    def __init__(
        self, table: Table, admission: Admission, usage: Usage, *, patience: float
    ) -> None:
        self._table = table
        self._admission = admission
        self.usage = usage
        self.patience = patience
        self.now = asyncio.get_running_loop().time

    def __call__(self, client: Connection, request: Request) -> Work | None:
        """Begin the work on a caller's request."""
        return self._begin(client, request, trusted=False)

    def trusted(self, client: Connection, request: Request) -> Work | None:
        """The same for the platform itself, which needs no key."""
        return self._begin(client, request, trusted=True)

    def handed_over(self, client: Connection, request: Request) -> Work | None:
        """The same for what a proxy in front has not passed on by itself."""
        passage = Passage.of(request)
        client.peer, client.scheme = passage.peer, passage.scheme
        return self._begin(client, request, trusted=False, passage=passage)

    def _begin(
        self,
        client: Connection,
        request: Request,
        *,
        trusted: bool,
        passage: Passage | None = None,
    ) -> Work | None:
        target = request.target
        end = target.find(b"/", 1)
        place = self._table.places.get(target[1:end] if end > 0 else target[1:])
        path = target[end:] if end > 0 else b"/"
        if place is None:
            place, path = self._look_closer(target)
        closed = not trusted and (
            self._admission.closed or (place is not None and place.live.closed)
        )
        caller = PLATFORM if trusted else None
        try:
            if place is None:
                self._own(client, request, trusted=trusted)
                return None
            if passage is not None and passage.caller is not None:
                caller = self._admission.admitted(passage.caller, passage.wait)
            elif not trusted and (closed or request.authorization or request.api_key):
                key = self._key(request, needed=closed)
                if key is not None:
                    caller = self._admission.admit(key, place.live.project)
        except Refusal as refusal:
            client.refuse(refusal.status, refusal.message, refusal.headers)
            return None
        if place.missing:
            client.refuse(404, place.missing)
            return None
        extra = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n%b" % (
            client.peer.encode(),
            client.scheme.encode(),
            place.prefix,
        )
        dropped = NOT_TO_BACKEND
        if caller is not None and not trusted:
            extra += f"{CALLER_HEADER}: {caller}\r\n".encode()
        if request.authorization is not None and carries_key(request.authorization, needed=closed):
            dropped = _WITHOUT_KEY
        head = forwarded(request, path, extra, dropped)
        return Exchange(
            self,
            client,
            request,
            place.live,
            place.pinned,
            head=head,
            caller=caller or ANONYMOUS,
            turn=place.live.versions.get(passage.turn) if passage else None,
        )

    def _key(self, request: Request, *, needed: bool) -> Key | None:
        """:raises Refusal: it carries none that is valid."""
        return self._admission.caller(request.authorization, request.api_key, needed=needed)

    def _look_closer(self, target: bytes) -> tuple[Place | None, bytes]:
        """The place of a path that is not written the usual way, or whose version is not there."""
        path, question, query = target.partition(b"?")
        segment, slash, rest = path[1:].partition(b"/")
        segment = segment.replace(b"%40", b"@")
        place = self._table.places.get(segment) or self._table.missing(segment)
        return place, (slash or b"/") + rest + question + query

    def _own(self, client: Connection, request: Request, *, trusted: bool) -> None:
        """What the gateway answers by itself."""
        path = request.target.partition(b"?")[0]
        if path == b"/-/health":
            answer = partial(client.answer, 200, document({"status": "ok"}))
        elif path in (b"/", b"/-/metrics"):
            visible, all_of_it = self._visible(request, trusted=trusted)
            if path == b"/":
                answer = partial(client.answer, 200, document({"projects": visible}))
            else:
                callers = self.usage.by_caller() if all_of_it else {}
                text = exposition(self._table.stats, visible, callers)
                answer = partial(client.answer, 200, text, content_type=CONTENT_TYPE)
        else:
            if self._admission.closed and not trusted:  # who has no key learns no names
                self._key(request, needed=True)
            shown = path[:100].decode("latin-1")
            client.refuse(404, f"no project at {shown!r}; GET / lists what there is")
            return
        if request.method in (b"GET", b"HEAD"):
            answer()
        else:
            used = request.method.decode()
            client.refuse(405, f"use GET, not {used}", {"Allow": "GET, HEAD"})

    def _visible(
        self, request: Request, *, trusted: bool
    ) -> tuple[dict[str, dict[str, object]], bool]:
        """The projects that may be shown to whoever asks, and whether who asks for them may be.

        :raises Refusal: there is a key, and it is not valid.
        """
        key = None if trusted else self._key(request, needed=False)
        shown = {}
        for project, live in sorted(self._table.live.items()):
            closed = self._admission.closed or live.closed
            if trusted or not closed or (key is not None and key.opens(project)):
                route = live.route
                shown[project] = {
                    "version": route.version,
                    "path": f"/{project}/",
                    "versions": sorted(route.versions),
                    "weights": route.weights,
                    "aliases": route.aliases,
                }
        return shown, trusted or (key is not None and key.projects == "*")
