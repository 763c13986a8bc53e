"""HAProxy's control socket: commands in, text out."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from tracklayer.errors import PlatformError

_WITHIN = 10.0
"""Seconds for the answer to a command."""


def word(path: Path) -> str:
    """A path as one word of a command."""
    return re.sub(r"([\s\\;])", r"\\\1", str(path))


class Control:
    """Commands to a running HAProxy (management guide, section 9.3)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self, command: str) -> str:
        """What HAProxy answers to a command, without the empty lines around it.

        :raises PlatformError: it is not there, or does not answer.
        """
        try:
            async with asyncio.timeout(_WITHIN):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(command.encode() + b"\n")
                    await writer.drain()
                    return (await reader.read()).decode(errors="replace").strip()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise PlatformError(f"HAProxy does not answer at {self._path}: {error!r}") from error

    async def at_work(self) -> int:
        """Requests that are not answered yet; connections that wait for one do not count.

        :raises PlatformError: as for a command.
        """
        lines = (await self("show sess")).splitlines()
        return sum(" fe=public " in line for line in lines)

    async def in_flight(self, backend: str, server: str) -> int:
        """Requests that are with a server now; 0 if there is no such server.

        :raises PlatformError: as for a command.
        """
        for line in (await self(f"show stat {backend} 4 -1")).splitlines():
            fields = line.split(",")
            if fields[:2] == [backend, server]:
                return int(fields[4] or 0)
        return 0
