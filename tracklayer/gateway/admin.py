"""The control plane: routes are changed through an owner-only unix socket.

``GET /-/routes``, ``PUT /-/routes/<project>?drain=<seconds>`` with a :class:`Route`,
``DELETE /-/routes/<project>?drain=<seconds>``, ``GET /-/stats/<project>``. Every other path is
passed on as at the public address, without a key: whoever may open the socket is the platform.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError

from tracklayer.errors import PlatformError, ServiceError, first_problem
from tracklayer.gateway.client import Switched
from tracklayer.gateway.connections import Connection, Work
from tracklayer.gateway.http1 import error_document
from tracklayer.gateway.proxy import Proxy
from tracklayer.gateway.request import Request
from tracklayer.gateway.routes import PROJECT, TABLE, Route
from tracklayer.gateway.stats import STATS
from tracklayer.gateway.table import Table

log = logging.getLogger(__name__)

Answer: TypeAlias = tuple[int, bytes]
Settle: TypeAlias = Callable[[], Awaitable[None]]

_OWN = (b"/-/routes", b"/-/stats")


class Admin:
    """The handler of the administration socket.

    :param settle: returns when all is counted that is over; None: it always is.
    """

    def __init__(self, table: Table, proxy: Proxy, settle: Settle | None = None) -> None:
        self._table = table
        self._proxy = proxy
        self._settle = settle
        self._changes: set[asyncio.Task[None]] = set()

    def __call__(self, client: Connection, request: Request) -> Work | None:
        """Begin the work on a request."""
        if request.target.startswith(_OWN):
            return _Change(self, client, request)
        return self._proxy.trusted(client, request)

    def start(self, change: _Change) -> None:
        """Answer a request, also if nobody waits for it any more."""
        task = asyncio.get_running_loop().create_task(self._answer(change))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _answer(self, change: _Change) -> None:
        try:
            status, body = await self._done(change.request)
        except Exception:
            log.exception("the administration failed")
            status, body = 500, error_document("the gateway failed on this; its log says why")
        if not change.gone:
            change.client.answer(status, body)

    async def _done(self, request: Request) -> Answer:
        url = urlsplit(request.target.decode("latin-1"))
        match request.method, url.path.split("/")[2:]:
            case b"GET", ["routes"]:
                return 200, TABLE.dump_json(self._table.routes)
            case b"GET", ["stats", project]:
                if self._settle is not None:
                    await self._settle()
                return 200, STATS.dump_json(self._table.stats.get(project, {}))
            case ((b"PUT" | b"DELETE"), ["routes", project]):
                return await self._change(request, project, parse_qs(url.query))
        return 404, error_document(f"nothing for {request.method.decode()} at {url.path}")

    async def _change(self, request: Request, project: str, query: dict[str, list[str]]) -> Answer:
        try:
            PROJECT.validate_python(project)
            drain = _seconds(query.get("drain", ["30"])[0])
            if request.method == b"PUT":
                route = Route.model_validate_json(b"".join(request.body))
                previous, left = await self._table.switch(project, route, drain)
            else:
                previous, left = await self._table.remove(project, drain)
        except ValidationError as invalid:
            return 400, error_document(first_problem(invalid))
        except ValueError as invalid:
            return 400, error_document(str(invalid))
        except ServiceError as refused:
            return 409, error_document(refused.message)
        except PlatformError as failed:
            return 500, error_document(failed.message)
        switched = Switched(drained=left == 0, in_flight=left, previous=previous)
        return 200, switched.model_dump_json().encode()


class _Change:
    """The work on one request to the control plane."""

    def __init__(self, admin: Admin, client: Connection, request: Request) -> None:
        self._admin = admin
        self.client = client
        self.request = request
        self.gone = False

    def body_came(self) -> None:
        if self.request.whole:
            self._admin.start(self)

    def abandoned(self) -> None:
        self.gone = True

    def taking_pauses(self, paused: bool) -> None:
        """Answers are small."""


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("drain must be a number of seconds, zero or more")
    return seconds
