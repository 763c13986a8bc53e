"""The ASGI application: routes, limits and back-pressure; knows no protocol by name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracklayer.serving import invocations, open_inference
from tracklayer.serving.http import Headers, Infer, Reply, Route, Service, json_reply
from tracklayer.serving.model import RequestError

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

log = logging.getLogger(__name__)

PROTOCOLS: tuple[Callable[[Service], dict[str, Route]], ...] = (
    open_inference.routes,
    invocations.routes,
)
"""Every protocol is a function from a service to its routes."""

_SMALL = 8 << 10
"""Bytes of a body that may be answered in the event loop."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server takes.

    :param body: bytes of a request.
    :param seconds: for reading a request and answering it.
    :param concurrency: requests being read, waiting or running; more get 503.
    :param workers: inferences at the same time.
    :param inline: where recent inferences took at most so many seconds, the next runs in the event
        loop, because the way to a thread and back costs more. 0: all run in threads, which keeps
        health checks alive whatever a request asks of the model.
    """

    body: int = 64 << 20
    seconds: float = 60.0
    concurrency: int = 64
    workers: int = 2
    inline: float = 0.0


class Application:
    """Serves one :class:`Service`.

    ``in_flight`` counts the inference requests it works on; ``last_refusal`` is when it last
    refused one because it drains (``time.monotonic``).
    """

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._routes = {
            path: route for protocol in PROTOCOLS for path, route in protocol(service).items()
        }
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="inference")
        self._cost = float("inf")
        self.in_flight = 0
        self.last_refusal = 0.0

    def warm_up(self, request: bytes) -> None:
        """Answer one Open Inference request twice: the first pays for what is lazy.

        :raises RequestError: the model cannot answer it.
        """
        infer = self._routes[f"/v2/models/{self._service.name}/infer"].infer
        assert infer is not None
        for _ in range(2):
            self._cost = 0.0
            self._timed(infer, request, {}, self._service.model.call())

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "http":
            return
        try:
            reply = await self._answer(scope, receive)
        except RequestError as refused:
            reply = _error(refused.status, refused.message, refused.headers)
        except _ClientGoneError:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            reply = _error(500, "the server failed on this request")
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
        ]
        headers += [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any, receive: ASGIReceiveCallable) -> Reply:
        route = self._routes.get(scope["path"])
        if route is None:
            raise RequestError(404, self._unknown(scope["path"]))
        method = scope["method"]
        if route.get:
            if method not in ("GET", "HEAD"):
                raise RequestError(405, f"use GET, not {method}", headers={"allow": "GET, HEAD"})
            return route.get()
        if method != "POST" or route.infer is None:
            raise RequestError(405, f"use POST, not {method}", headers={"allow": "POST"})
        if self._service.draining:
            self.last_refusal = time.monotonic()
            raise RequestError(503, "this server is stopping", headers={"retry-after": "1"})
        if self.in_flight >= self._limits.concurrency:
            raise RequestError(503, "too many requests at once", headers={"retry-after": "1"})
        self.in_flight += 1
        try:
            return await self._infer(route.infer, dict(scope["headers"]), receive)
        finally:
            self.in_flight -= 1

    async def _infer(self, infer: Infer, headers: Headers, receive: ASGIReceiveCallable) -> Reply:
        call = self._service.model.call()
        body: bytes | None = None
        try:
            async with asyncio.timeout(self._limits.seconds):
                body = await self._read(headers, receive)
                if self._cost < self._limits.inline and len(body) <= _SMALL:
                    return self._timed(infer, body, headers, call)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    self._pool, self._timed, infer, body, headers, call
                )
        except TimeoutError:
            call.terminate = True
            if body is None:
                raise RequestError(
                    408, f"the body took longer than {self._limits.seconds:g} s"
                ) from None
            message = f"the answer took longer than {self._limits.seconds:g} s"
            raise RequestError(504, message) from None

    def _timed(self, infer: Infer, body: bytes, headers: Headers, call: Any) -> Reply:
        """Answer, and note the cost: the longest of the recent requests decides where they run."""
        start = time.perf_counter()
        reply = infer(body, headers, call)
        self._cost = max(time.perf_counter() - start, self._cost * 0.9)
        return reply

    async def _read(self, headers: Headers, receive: ASGIReceiveCallable) -> bytes:
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RequestError(415, "content-encoding: compressed bodies are not served")
        limit = self._limits.body
        # The HTTP parser has made sure that the length is a number.
        if int(headers.get(b"content-length", b"0")) > limit:
            raise RequestError(413, f"the body is larger than {limit} bytes")
        message: Any = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            return _within(message["body"], limit)
        body = bytearray()
        while message["type"] == "http.request":
            body += _within(message["body"], limit - len(body))
            if not message["more_body"]:
                return bytes(body)
            message = await receive()
        raise _ClientGoneError

    def _unknown(self, path: str) -> str:
        parts = path.split("/")
        if parts[1:3] == ["v2", "models"] and len(parts) > 3:
            if parts[3] != self._service.name:
                return f"no model {parts[3][:100]!r} here; this is {self._service.name!r}"
            if parts[4:5] == ["versions"] and parts[5:6] != [self._service.version]:
                asked = parts[5][:100] if len(parts) > 5 else ""
                return f"no version {asked!r} here; this is {self._service.version!r}"
        return f"nothing at {path[:200]!r}"


class _ClientGoneError(Exception):
    """The client left before its request was complete."""


def _within(chunk: bytes, limit: int) -> bytes:
    if len(chunk) > limit:
        raise RequestError(413, "the body is larger than this server takes")
    return chunk


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return json_reply({"error": message}, status)._replace(headers=headers or {})
