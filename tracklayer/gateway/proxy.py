"""The way of a request: from the stable URL to a server that is up, and its answer back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tracklayer.gateway.backends import Backend, LiveRoute
from tracklayer.gateway.table import Table

VERSION_HEADER = "X-Tracklayer-Version"

# RFC 9110, 7.6.1: fields of one connection, which a proxy does not pass on. The framing of a
# message is always written anew, never copied: that is what keeps requests from being smuggled.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What a client says about who it is: the gateway says it instead.
_FORWARDED = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-real-ip",
    }
)
_NOT_TO_BACKEND = _HOP_BY_HOP | _FORWARDED | {"expect", "content-length"}
_NOT_TO_CLIENT = _HOP_BY_HOP | {"server", VERSION_HEADER.lower()}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_BUFFERED = 1 << 20
"""Bytes of a body that are held in memory, so that one write sends it and it can be sent again."""


class Proxy:
    """The handler of the public address.

    :param limit: bytes that the body of a request may have.
    :param timeout: seconds to wait for the next piece of a body (of a small one: for all of it).
    """

    def __init__(self, table: Table, *, limit: int, timeout: float) -> None:
        self._table = table
        self._limit = limit
        self._timeout = timeout

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        if request.method not in _METHODS or not target.startswith("/"):
            return error(400, "the gateway takes requests for a path, by the usual methods")
        path, question, query = target.partition("?")
        project, _, rest = path[1:].partition("/")
        live = self._table.live.get(project)
        if live is None:
            return self._own(request, path)
        if (request.content_length or 0) > self._limit:
            return _too_large(self._limit).response
        url = URL(f"http://backend/{rest}{question}{query}", encoded=True)
        return await self._forward(request, live, url, f"/{project}")

    def _own(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path not in ("/", "/-/health"):
            return error(404, f"no project at {path[:100]!r}")
        if request.method not in ("GET", "HEAD"):
            return error(405, f"use GET, not {request.method}", {"Allow": "GET, HEAD"})
        if path == "/-/health":
            return _json({"status": "ok"})
        projects = {
            project: {"version": route.version, "path": f"/{project}/"}
            for project, route in sorted(self._table.routes.items())
        }
        return _json({"projects": projects})

    async def _forward(
        self, request: web.BaseRequest, live: LiveRoute, url: URL, prefix: str
    ) -> web.StreamResponse:
        upload = _Upload(request, self._limit, self._timeout)
        candidates = live.candidates(asyncio.get_running_loop().time())
        # Counted from here on, before anything is awaited: the old servers of a route that
        # changes now wait for this request, even while its body still comes in.
        held = candidates[0]
        held.in_flight += 1
        try:
            await upload.prepare()
            headers = _request_headers(request, prefix, upload)
            for backend in candidates:
                held.in_flight -= 1
                held = backend
                held.in_flight += 1
                response = await self._ask(request, backend, url, headers, upload)
                if response is None:
                    continue
                if response.status == 503:
                    # Busy or stopping: the request was not worked on, so another may have it.
                    backend.mark_down(asyncio.get_running_loop().time())
                    if upload.repeatable and backend is not candidates[-1]:
                        response.release()
                        continue
                return await _answer(request, response, str(live.route.version))
        except _AnsweredError as answered:
            return answered.response
        finally:
            held.in_flight -= 1
        return error(503, "no server of this project answers now", {"Retry-After": "1"})

    async def _ask(
        self,
        request: web.BaseRequest,
        backend: Backend,
        url: URL,
        headers: CIMultiDict[str],
        upload: _Upload,
    ) -> aiohttp.ClientResponse | None:
        """The beginning of the backend's answer; None if the request never left."""
        try:
            return await backend.session.request(
                request.method, url, headers=headers, data=upload.data(), allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            backend.mark_down(asyncio.get_running_loop().time())
            return None
        except TimeoutError:
            raise _AnsweredError(504, "the server of this project took too long") from None
        except (aiohttp.ClientError, OSError):
            if upload.failure:
                raise upload.failure from None
            message = "the server of this project ended before it answered"
            raise _AnsweredError(502, message) from None


class _AnsweredError(Exception):
    """The gateway answers by itself, with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = error(status, message)


class _Upload:
    """The body of a request: in memory when it is small, else passed on as it comes.

    ``failure`` is what went wrong with the client's side while it was passed on.
    """

    def __init__(self, request: web.BaseRequest, limit: int, timeout: float) -> None:
        self._content = request.content
        self._limit = limit
        self._timeout = timeout
        self._body: bytes | None = None
        self.exists = request.body_exists
        self.length = request.content_length
        self.repeatable = not self.exists
        self.failure: _AnsweredError | None = None

    async def prepare(self) -> None:
        """Read a small body.

        :raises _AnsweredError: it did not come in time, or not whole.
        """
        if self.exists and self.length is not None and self.length <= _BUFFERED:
            self._body = await self._patiently(self._content.read())
            self.repeatable = True

    def data(self) -> bytes | AsyncIterator[bytes] | None:
        """The body, for the client."""
        return self._body if self.repeatable else self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        left = self._limit
        try:
            while chunk := await self._patiently(self._content.readany()):
                left -= len(chunk)
                if left < 0:
                    raise _too_large(self._limit)
                yield chunk
        except _AnsweredError as failure:
            self.failure = failure
            raise

    async def _patiently(self, reading: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await reading
        except TimeoutError:
            message = f"nothing came of the body for {self._timeout:g} s"
            raise _AnsweredError(408, message) from None
        except (aiohttp.ClientError, web.RequestPayloadError, OSError):
            raise _AnsweredError(400, "the body ended too early") from None


async def _answer(
    request: web.BaseRequest, response: aiohttp.ClientResponse, version: str
) -> web.StreamResponse:
    """Pass an answer on; a small one in one write."""
    headers = _kept(response.headers, _NOT_TO_CLIENT)
    headers[VERSION_HEADER] = version
    headers["Server"] = "tracklayer"
    length = response.content_length
    answer: web.StreamResponse | None = None
    try:
        if request.method != "HEAD" and length is not None and length <= _BUFFERED:
            body = await response.read()
            return web.Response(status=response.status, headers=headers, body=body)
        answer = web.StreamResponse(status=response.status, headers=headers)
        await answer.prepare(request)
        async for chunk in response.content.iter_any():
            await answer.write(chunk)
        await answer.write_eof()
        return answer
    except (aiohttp.ClientError, TimeoutError, OSError):
        if answer is None:
            return error(502, "the server of this project ended within its answer")
        # The client has a beginning already: a broken connection tells it that the rest is lost.
        if request.transport:
            request.transport.abort()
        return answer
    finally:
        response.release()


def _request_headers(request: web.BaseRequest, prefix: str, upload: _Upload) -> CIMultiDict[str]:
    headers = _kept(request.headers, _NOT_TO_BACKEND)
    if upload.exists and upload.length is not None:
        headers["Content-Length"] = str(upload.length)
    headers["X-Forwarded-For"] = request.remote or "unknown"
    headers["X-Forwarded-Proto"] = request.scheme
    headers["X-Forwarded-Host"] = request.host
    headers["X-Forwarded-Prefix"] = prefix
    return headers


def _kept(headers: CIMultiDictProxy[str], dropped: frozenset[str]) -> CIMultiDict[str]:
    """A copy of ``headers`` without ``dropped`` and without what ``Connection`` names."""
    named = {
        token.strip().lower()
        for value in headers.getall("Connection", ())
        for token in value.split(",")
    }
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        lower = name.lower()
        if lower not in dropped and lower not in named:
            kept.add(name, value)
    return kept


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer of the gateway's own, in the protocol's form."""
    return _json({"error": message}, status, headers)


def _json(
    document: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    fields = {"Server": "tracklayer", **(headers or {})}
    return web.json_response(document, status=status, headers=fields)


def _too_large(limit: int) -> _AnsweredError:
    return _AnsweredError(413, f"the body is larger than {limit} bytes")
