"""``python -m bench.aiohttp_proxy PORT SOCKET PREFIX``: the usual proxy on aiohttp, as reference.

It passes on method, path, headers and body, and the answer, with a pool of connections.
"""

from __future__ import annotations

import sys

import aiohttp
import uvloop
from aiohttp import web

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


async def _application() -> web.Application:
    _, _, path, prefix = sys.argv
    connector = aiohttp.UnixConnector(path, limit=0)
    session = aiohttp.ClientSession(connector=connector, auto_decompress=False)

    async def forward(request: web.Request) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        url = f"http://server{request.raw_path.removeprefix(prefix)}"
        body = await request.read() if request.can_read_body else None
        async with session.request(request.method, url, headers=headers, data=body) as answer:
            passed = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
            return web.Response(status=answer.status, headers=passed, body=await answer.read())

    application = web.Application(client_max_size=64 << 20)
    application.router.add_route("*", "/{path:.*}", forward)
    return application


if __name__ == "__main__":
    uvloop.install()
    web.run_app(_application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
