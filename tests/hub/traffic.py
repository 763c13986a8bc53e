"""What the hub does to every request: count it, note it, slow it, fail it; and sending files."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from weakref import WeakKeyDictionary

from aiohttp import web

PIECE = 1 << 20
BURST = 0.1  # seconds that a connection may catch up on
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Knobs:
    """How the hub behaves. All are options of the program, and of ``POST /_knobs``."""

    latency: float = 0.0  # seconds before each answer
    bandwidth: float = 0.0  # bytes a second and connection; 0: as fast as it goes
    unavailable: int = 0  # each request whose number divides by this is answered 503
    limited: int = 0  # so many requests from now on are answered 429
    retry_after: float = 1.0  # seconds, sent with these
    page: int = 1000  # entries a page of a list, at most
    signed: float = 3600.0  # seconds for which a signed address is good
    wrong: str = ""  # files whose path contains this are sent with one byte flipped

    def change(self, given: Mapping[str, Any]) -> None:
        """Set some of them; what they are is told by their defaults."""
        known = {knob.name: type(knob.default) for knob in fields(self)}
        for name, value in given.items():
            setattr(self, name, known[name](value))


@dataclass
class Traffic:
    """The state of one hub: its knobs, what it was asked and what it sent."""

    root: Path
    knobs: Knobs = field(default_factory=Knobs)
    log: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    number: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    cdn: str = ""
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _free: WeakKeyDictionary[asyncio.BaseTransport, float] = field(
        default_factory=WeakKeyDictionary
    )

    @web.middleware
    async def meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note the request, then answer, late or not at all."""
        if request.path.startswith("/_"):
            return await handler(request)
        self.number += 1
        noted: dict[str, Any] = {
            "method": request.method,
            "path": request.raw_path,
            "headers": dict(request.headers),
            "host": request.host,
        }
        self.log.append(noted)
        if self.knobs.latency:
            await asyncio.sleep(self.knobs.latency)
        response = self._refused() or await handler(request)
        noted["status"] = response.status
        self.statuses[response.status] += 1
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            self.sent += len(response.body)
        return response

    def _refused(self) -> web.Response | None:
        if self.knobs.limited > 0:
            self.knobs.limited -= 1
            wait = f"{self.knobs.retry_after:g}"
            after = {"Retry-After": wait, "RateLimit": f'"api";r=0;t={wait}'}
            return web.json_response({"error": "too many requests"}, status=429, headers=after)
        if self.knobs.unavailable and self.number % self.knobs.unavailable == 0:
            return web.json_response({"error": "try again"}, status=503)
        return None

    def stats(self) -> dict[str, Any]:
        """Requests and bytes of bodies so far, and the knobs."""
        counted = {"requests": self.number, "bytes": self.sent, "statuses": self.statuses}
        return counted | {"knobs": asdict(self.knobs)}

    def sign(self, path: Path) -> str:
        """The address of a file on the other host, good for a while."""
        expires = int(time.time() + self.knobs.signed)
        name = quote(str(path.relative_to(self.root)))
        return f"{self.cdn}/{name}?Expires={expires}&Signature={self._signature(name, expires)}"

    async def deliver(self, request: web.Request) -> web.StreamResponse:
        """A file by its signed address."""
        name = request.rel_url.raw_path.lstrip("/")  # also where the whole address was sent
        expires = int(request.query.get("Expires", "0"))
        good = self._signature(name, expires)
        if not hmac.compare_digest(request.query.get("Signature", ""), good):
            return web.Response(status=403, text="SignatureDoesNotMatch")
        if expires < time.time():
            return web.Response(status=403, text="Request has expired")
        path = self.root / unquote(name)
        found = path.stat()
        etag = hashlib.sha256(f"{found.st_size}-{found.st_mtime_ns}".encode()).hexdigest()[:32]
        return await self.send(request, path, {"ETag": f'"{etag}"'})

    def _signature(self, name: str, expires: int) -> str:
        return hmac.new(self._secret, f"{name}:{expires}".encode(), "sha256").hexdigest()

    async def send(
        self, request: web.Request, path: Path, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """A file or the part of it that was asked for, at the speed that was set."""
        size = path.stat().st_size
        first, last, status = 0, size - 1, 200
        if_range = request.headers.get("If-Range")
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if asked and any(asked.groups()) and if_range in (None, headers["ETag"]):
            begin, end = asked.groups()
            first = int(begin) if begin else max(0, size - int(end))
            last = min(size - 1, int(end)) if begin and end else size - 1
            if first > last:
                extent = {"Content-Range": f"bytes */{size}"}
                return web.Response(status=416, headers=extent)
            status = 206
        response = web.StreamResponse(status=status, headers={**headers, "Accept-Ranges": "bytes"})
        if status == 206:
            response.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        response.content_type = "application/octet-stream"
        response.content_length = last + 1 - first
        await response.prepare(request)
        if request.method != "HEAD":
            await self._stream(request, response, path, first, last + 1)
        await response.write_eof()
        return response

    async def _stream(
        self,
        request: web.Request,
        response: web.StreamResponse,
        path: Path,
        begin: int,
        end: int,
    ) -> None:
        transport, bandwidth = request.transport, self.knobs.bandwidth
        if transport is None:
            raise ConnectionResetError
        piece = PIECE if bandwidth else 64 << 20
        loop = asyncio.get_running_loop()
        flipped = self.knobs.wrong and self.knobs.wrong in str(path)
        with path.open("rb") as stream:
            while begin < end:
                count = min(piece, end - begin)
                if flipped:
                    data = bytearray(os.pread(stream.fileno(), min(count, PIECE), begin))
                    count = len(data)
                    data[0] ^= begin == 0
                    await response.write(data)
                else:
                    await loop.sendfile(transport, stream, begin, count)
                begin += count
                self.sent += count
                if bandwidth:  # a connection is as fast as that, however many answers it carries
                    now = time.monotonic()
                    free = max(now - BURST, self._free.get(transport, now)) + count / bandwidth
                    self._free[transport] = free
                    await asyncio.sleep(max(0, free - now))
