"""``python -m bench.httpx_proxy PORT SOCKET PREFIX``: the proxy that is written in a minute.

An ASGI function under uvicorn that asks the server by httpx, with its pool of connections.
"""

from __future__ import annotations

import sys
from typing import Any

import httpx
import uvicorn

_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"host"}
_DECODED = {b"content-encoding"}  # httpx has undone it
_PREFIX = sys.argv[3]
_CLIENT = httpx.AsyncClient(
    transport=httpx.AsyncHTTPTransport(uds=sys.argv[2]), base_url="http://server"
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = await _CLIENT.request(
        scope["method"],
        scope["path"].removeprefix(_PREFIX),
        headers=[(key, value) for key, value in scope["headers"] if key not in _HOP],
        content=body,
    )
    passed = [(key.lower(), value) for key, value in answer.headers.raw]
    headers = [(key, value) for key, value in passed if key not in _HOP | _DECODED]
    headers.append((b"content-length", str(len(answer.content)).encode()))
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
