"""One HAProxy in front of the gateway's own proxy: started, told, started again, stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import tracklayer
from tracklayer.access import Admission
from tracklayer.errors import PlatformError
from tracklayer.gateway.backends import Backend
from tracklayer.gateway.haproxy.configuration import CERTIFICATE, configuration
from tracklayer.gateway.haproxy.control import Control, word
from tracklayer.gateway.haproxy.installed import program
from tracklayer.gateway.haproxy.lanes import Lanes
from tracklayer.gateway.haproxy.requests import Requests
from tracklayer.gateway.live import LiveRoute
from tracklayer.gateway.stats import VersionStats
from tracklayer.gateway.tls import Certificate
from tracklayer.gateway.usage import Usage
from tracklayer.sockets import LONGEST, accepts, listen_unix

log = logging.getLogger(__name__)

_LANES = 256
"""Versions that HAProxy passes requests on to; those beyond are left to the gateway's own proxy."""

_LONGEST_NAME = "control.sock.4194304.tmp"
"""HAProxy listens under such a name, with its process id, before it renames the file."""

_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_TOP_PAD_": str(4 << 20)}
"""Else the C library gives the last buffer back to the system, and takes it again, every few
requests (mallopt(3))."""

_READY = 10.0
"""Seconds that HAProxy may take to start."""

_SETTLED = 2.0
"""Seconds for what HAProxy tells of requests that are over to arrive."""

_AGAIN = 0.5
"""Seconds before HAProxy is started again when it has ended just now."""


class Front:
    """HAProxy on the public socket.

    :param folder: for its sockets and files; made here, owner-only, and removed at the end.
    :param public: the listening socket. Closed by :meth:`stop`.
    :param patience: seconds to wait for a server, and for the next piece from a caller.
    :param drain: seconds to finish at a stop.
    :raises PlatformError: there is no HAProxy that could do it.
    """

    def __init__(
        self,
        folder: Path,
        public: socket.socket,
        certificate: Certificate | None,
        admission: Admission,
        *,
        patience: float,
        drain: float,
    ) -> None:
        self._program = program()
        if len(os.fsencode(folder / _LONGEST_NAME)) > LONGEST:
            raise PlatformError(
                f"the path {folder} is too long for HAProxy's sockets",
                hint="Choose a shorter folder for sockets (XDG_RUNTIME_DIR).",
            )
        self._folder = folder
        self._public = public
        self._certificate = certificate
        self._admission = admission
        self._patience, self._drain = patience, drain
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        self._control = Control(folder / "control.sock")
        self._process: asyncio.subprocess.Process | None = None
        self._lanes = Lanes(self._control, 0, folder)
        self._telling = asyncio.Lock()
        self._live: Mapping[str, LiveRoute] = {}
        self._numbers = count()
        self._marks: dict[str, asyncio.Future[None]] = {}
        self._keeping: asyncio.Task[None] | None = None

    def inner(self) -> socket.socket:
        """The socket on which HAProxy hands over what it does not pass on by itself."""
        return listen_unix(self._folder / "inner.sock")

    async def start(
        self, stats: Mapping[str, dict[int, VersionStats]], usage: Usage
    ) -> asyncio.Server:
        """Start HAProxy, which from then on is started again whenever it ends.

        :returns: where it tells of the requests that it passed on.
        :raises PlatformError: it does not start.
        """
        loop = asyncio.get_running_loop()
        told = await loop.create_unix_server(
            lambda: Requests(stats, usage, self._marked),
            sock=listen_unix(self._folder / "requests.sock"),
        )
        await self._begin()
        self._keeping = asyncio.create_task(self._keep())
        return told

    async def follow(self, live: Mapping[str, LiveRoute], leaving: Sequence[Backend] = ()) -> None:
        """Make HAProxy do what the routes and the keys say; see :meth:`Lanes.follow`.

        Where HAProxy cannot be told, it is ended: the next one knows it from its start on.
        """
        async with self._telling:
            self._live = live
            try:
                await self._lanes.follow(live, self._admission, leaving)
            except PlatformError as error:
                log.error("%s; it is started anew", error.message)
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()

    async def settle(self) -> None:
        """Return when every request that is over was counted."""
        word = str(next(self._numbers))
        mark = self._marks[word] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_SETTLED):
                await self._control(f"tracklayer mark {word}")
                await mark
        except (PlatformError, TimeoutError) as error:
            log.warning("HAProxy does not say what it has passed on: %r", error)
        finally:
            del self._marks[word]

    def _marked(self, word: str) -> None:
        mark = self._marks.get(word)
        if mark is not None and not mark.done():
            mark.set_result(None)

    async def renew(self) -> None:
        """The certificate was renewed: new connections get it."""
        path = self._write_certificate()
        text = "\n".join(line for line in path.read_text().splitlines() if line.strip())
        try:
            await self._control(f"set ssl cert {word(path)} <<\n{text}\n")
            await self._control(f"commit ssl cert {word(path)}")
        except PlatformError as error:
            log.error("HAProxy keeps the certificate that it has: %s", error.message)

    async def stop(self) -> None:
        """Let HAProxy answer what it has, within the time for that, and end."""
        self._public.close()
        if self._keeping is not None:
            self._keeping.cancel()
        process = self._process
        if process is not None and process.returncode is None:
            try:
                async with asyncio.timeout(self._drain):
                    await self._control("shutdown frontend public")
                    while await self._control.at_work():
                        await asyncio.sleep(0.01)
                await self.settle()
            except (PlatformError, TimeoutError) as error:
                log.warning("HAProxy is ended with requests at work: %r", error)
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
        self._lanes.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("HAProxy has ended with %d; it is started again", code)
            async with self._telling:
                self._lanes.close()
                try:
                    await self._begin()
                except PlatformError as error:
                    log.error("%s", error.message)
            await asyncio.sleep(_AGAIN)

    async def _begin(self) -> None:
        self._lanes = Lanes(self._control, _LANES, self._folder / "known.lua")
        if self._certificate is not None:
            self._write_certificate()
        file = self._folder / "haproxy.cfg"
        file.write_text(
            configuration(
                self._folder,
                listener=self._public.fileno(),
                tls=self._certificate is not None,
                patience=self._patience,
                drain=self._drain,
                lanes=_LANES,
            )
        )
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-P", "-m", "tracklayer.runtimes.tethered", str(os.getpid())),
            *(self._program, "-db", "-q", "-f", str(file)),
            env=os.environ | _MEMORY | {"PYTHONPATH": str(Path(tracklayer.__file__).parent.parent)},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(self._public.fileno(),),
            start_new_session=True,  # a signal for our group is not for it: it ends after us
        )
        await self._ready(file)
        await self._lanes.follow(self._live, self._admission, ())

    async def _ready(self, file: Path) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(_READY):
                while not accepts(self._folder / "control.sock"):
                    if self._process.returncode is not None:
                        raise PlatformError(f"HAProxy does not start: {await self._wrong(file)}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise PlatformError(f"HAProxy is not ready after {_READY:g} s") from None

    async def _wrong(self, file: Path) -> str:
        check = await asyncio.create_subprocess_exec(
            *(self._program, "-c", "-f", str(file)),
            pass_fds=(self._public.fileno(),),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await check.communicate()
        return said.decode(errors="replace").strip()[-500:] or "it does not say why"

    def _write_certificate(self) -> Path:
        assert self._certificate is not None
        path = self._folder / CERTIFICATE
        path.touch(mode=0o600)
        path.write_bytes(b"\n".join(dict.fromkeys(self._certificate.pem)))
        return path
