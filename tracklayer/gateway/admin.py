"""The control plane: routes are changed through an owner-only unix socket.

``GET /routes``, ``PUT /routes/<project>?drain=<seconds>`` with a :class:`Route`,
``DELETE /routes/<project>?drain=<seconds>``.
"""

from __future__ import annotations

import math

from aiohttp import web
from pydantic import ValidationError

from tracklayer.errors import PlatformError, ServiceError
from tracklayer.gateway.proxy import error
from tracklayer.gateway.routes import PROJECT, TABLE, Route, problem
from tracklayer.gateway.table import Table


class Admin:
    """The handler of the administration socket."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method, request.path.split("/")[1:]:
            case "GET", ["routes"]:
                body = TABLE.dump_json(self._table.routes)
                return web.Response(body=body, content_type="application/json")
            case (("PUT" | "DELETE"), ["routes", project]):
                return await self._change(request, project)
        return error(404, f"nothing for {request.method} at {request.path}")

    async def _change(self, request: web.BaseRequest, project: str) -> web.StreamResponse:
        try:
            PROJECT.validate_python(project)
            drain = _seconds(request.query.get("drain", "30"))
            if request.method == "PUT":
                route = Route.model_validate_json(await request.read())
                previous, left = await self._table.switch(project, route, drain)
            else:
                previous, left = await self._table.remove(project, drain)
        except ValidationError as invalid:
            return error(400, problem(invalid))
        except ValueError as invalid:
            return error(400, str(invalid))
        except ServiceError as refused:
            return error(409, refused.message)
        except PlatformError as failed:
            return error(500, failed.message)
        document = {
            "drained": left == 0,
            "in_flight": left,
            "previous": previous.model_dump(mode="json") if previous else None,
        }
        return web.json_response(document)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("drain must be a number of seconds, zero or more")
    return seconds
