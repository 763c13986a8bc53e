"""Which backend of HAProxy has which version, and what its Lua has to know."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tracklayer.access import Admission, Key
from tracklayer.errors import PlatformError
from tracklayer.gateway.backends import Backend
from tracklayer.gateway.haproxy.configuration import lane
from tracklayer.gateway.haproxy.control import Control, word
from tracklayer.gateway.live import LiveRoute, LiveVersion
from tracklayer.gateway.table import segments

log = logging.getLogger(__name__)

Version: TypeAlias = tuple[str, int]
"""Project and number."""

_POLL = 0.02
"""Seconds between two looks at the requests of servers that leave."""

_REST = 5.0
"""Seconds that a lane rests before another version gets it."""

# A server that refuses a connection is out at once, and is asked again twice a second. Connections
# are kept, which HAProxy does not do by itself for a server that is added; model servers keep them
# longer, so they never close one just as a request is sent into it.
_SERVER = (
    "check inter 500ms rise 1 observe layer4 error-limit 1 on-error mark-down "
    "pool-max-conn 1000 pool-purge-delay 20s"
)


class _RefusedError(PlatformError):
    """HAProxy does not do what it was told."""


@dataclass(slots=True)
class _Lane:
    """A backend that a version has.

    :ivar servers: path of each of its servers -> HAProxy's name for it.
    :ivar made: servers that it ever had: no name is given twice.
    :ivar leaving: servers that are not its own any more, and still there.
    :ivar left: its version is gone: when its last server is too, another version may have it.
    """

    name: str
    servers: dict[Path, str] = field(default_factory=dict)
    made: int = 0
    leaving: int = 0
    left: bool = False


class Lanes:
    """The lanes of one HAProxy.

    :param control: its control socket.
    :param count: lanes that its configuration has.
    :param file: that tells its Lua what it has to know; only its owner can read it.
    """

    def __init__(self, control: Control, count: int, file: Path) -> None:
        self._control = control
        self._file = file
        self._free = deque((0.0, lane(number)) for number in range(count))
        self._held: dict[Version, _Lane] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def follow(
        self,
        live: Mapping[str, LiveRoute],
        admission: Admission,
        leaving: Sequence[Backend],
    ) -> None:
        """Make HAProxy do what the routes and the keys say. From the return on, ``outside`` of the
        servers in ``leaving`` is what HAProxy still has with each.

        :raises PlatformError: HAProxy does not answer, or does not do it.
        """
        wanted = {
            (project, version.number): version
            for project, route in live.items()
            for version in route.versions.values()
        }
        gone: list[tuple[_Lane, Path]] = []
        left = [self._held.pop(key) for key in list(self._held) if key not in wanted]
        for key, version in wanted.items():
            try:
                gone += await self._serve(key, version)
            except _RefusedError as error:
                log.error("%s; %s %d is left to the gateway's own proxy", error.message, *key)
                left.append(self._held.pop(key))
        gone += [(each, path) for each in left for path in each.servers]
        await self._tell(live, admission)
        backends = {backend.path: backend for backend in leaving}
        for each, path in gone:
            if path in backends:
                backends[path].outside += 1  # until HAProxy has said how many there are
            each.leaving += 1
            task = asyncio.create_task(self._retire(each, path, backends.get(path)))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for each in left:
            each.left = True
            self._release(each)

    def close(self) -> None:
        """HAProxy is gone: nothing of it is waited for."""
        for task in self._leaving:
            task.cancel()

    def _release(self, held: _Lane) -> None:
        """Let another version have a lane that is empty: in one that is not, a request of the one
        before could still be sent to a server of the next."""
        if held.left and not held.leaving:
            self._free.append((time.monotonic() + _REST, held.name))

    async def _serve(self, key: Version, version: LiveVersion) -> list[tuple[_Lane, Path]]:
        """Give a version its lane and its servers; those that are not its own any more."""
        held = self._held.get(key)
        if held is None:
            if not self._free or self._free[0][0] > time.monotonic():
                return []  # our own proxy has it meanwhile
            held = self._held[key] = _Lane(self._free.popleft()[1])
        paths = [backend.path for backend in version.backends]
        for path in paths:
            if path not in held.servers:
                held.made += 1
                name = f"s{held.made}"
                place = f"{held.name}/{name}"
                added = f"add server {place} unix@{word(path)} {_SERVER}"
                await self._do(added, "New server registered")
                await self._do(f"enable health {place}; enable server {place}", "")
                held.servers[path] = name
        return [(held, path) for path in held.servers if path not in paths]

    async def _retire(self, held: _Lane, path: Path, backend: Backend | None) -> None:
        """Wait until nothing is at work at a server, then take it out of its lane."""
        name = held.servers.pop(path)
        counted = 1
        try:
            await self._do(f"set server {held.name}/{name} state drain", "")
            while counted:
                now = await self._control.in_flight(held.name, name)
                if backend is not None:
                    backend.outside += now - counted
                counted = now
                if counted:
                    await asyncio.sleep(_POLL)
            await self._do(f"set server {held.name}/{name} state maint", "")
            while "deleted" not in await self._control(f"del server {held.name}/{name}"):
                await asyncio.sleep(_POLL)
            held.leaving -= 1
            self._release(held)
        except PlatformError as error:
            log.warning("%s", error.message)
        finally:
            if backend is not None:
                backend.outside -= counted

    async def _tell(self, live: Mapping[str, LiveRoute], admission: Admission) -> None:
        places = {
            segment.decode(): self._place(segment.decode(), route, pinned)
            for route in live.values()
            for segment, pinned in segments(route).items()
        }
        keys = {key.digest.upper(): _key(key, tokens) for key, tokens in admission.all()}
        text = lua({"closed": admission.closed, "places": places, "keys": keys})
        await asyncio.to_thread(self._write, f"return {text}\n")
        await self._do(f"tracklayer load {word(self._file)}", "ok")

    def _write(self, text: str) -> None:
        self._file.touch(mode=0o600)
        self._file.write_text(text)

    def _place(self, segment: str, live: LiveRoute, pinned: LiveVersion | None) -> dict[str, Any]:
        shares = live.shares if pinned is None else {pinned.number: 1.0}
        turns = []
        for number, share in shares.items():
            held = self._held.get((live.project, number))
            version = live.versions[number]
            turns.append(
                {
                    "version": number,
                    "asked": f"{live.project} {number} ",
                    "share": share,
                    "lane": held.name if held else None,
                    "trial": pinned is None and version is not live.main,
                    "several": len(version.backends) > 1,
                }
            )
        return {
            "project": live.project,
            "prefix": f"/{segment}",
            "closed": live.closed,
            "pinned": pinned is not None,
            "turns": turns,
        }

    async def _do(self, command: str, expected: str) -> None:
        answer = await self._control(command)
        if expected not in answer or (not expected and answer):
            raise _RefusedError(f"HAProxy answers {answer!r} to {command!r}")


def _key(key: Key, tokens: float | None) -> dict[str, Any]:
    return {
        "caller": key.name,
        "projects": None if key.projects == "*" else dict.fromkeys(key.projects, True),
        "expires": key.expires.timestamp() if key.expires else None,
        "rate": key.rate,
        "burst": key.burst or 1,
        "tokens": tokens,
    }


def lua(value: Any) -> str:
    """A value as Lua writes it; None, which a table of Lua cannot hold, is left out of one."""
    if isinstance(value, dict):
        inside = (f"[{lua(key)}]={lua(each)}" for key, each in value.items() if each is not None)
        return "{" + ",".join(inside) + "}"
    if isinstance(value, list):
        return "{" + ",".join(map(lua, value)) + "}"
    # Names and digests: nothing in them that the two languages write in different ways.
    return json.dumps(value)
