"""uvicorn with our way to stop: finish what was taken, refuse what is new, exit with 0."""

from __future__ import annotations

import logging
import socket
import time
from types import FrameType

import uvicorn
import uvicorn.config

from tracklayer.serving.app import Application
from tracklayer.serving.http import Service

_KEEP_ALIVE = 75
"""Seconds; longer than the gateway keeps an idle connection, so that it is the one who closes."""


_QUIET = 0.3
"""Seconds without a new request before a draining server closes its connections. A proxy that was
refused once asks others meanwhile, so that it does not write into a connection as it is closed."""


class Server(uvicorn.Server):
    """One application on one listening socket.

    :param drain: seconds that requests may take to finish after a signal.
    """

    def __init__(
        self, application: Application, service: Service, *, drain: float, access_log: bool
    ) -> None:
        if access_log:
            logging.getLogger("uvicorn.access").setLevel(logging.INFO)
        super().__init__(
            uvicorn.Config(
                application,
                lifespan="off",
                ws="none",
                interface="asgi3",
                log_config=None,
                access_log=access_log,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=5,
            )
        )
        self._application = application
        self._service = service
        self._drain = drain
        self._stopping: float | None = None

    def run_on(self, listener: socket.socket) -> None:
        """Serve on ``listener`` until SIGTERM or SIGINT; a second signal does not wait."""
        self.run(sockets=[listener])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain. The signal is not raised again at the end: the exit code is 0."""
        if self._service.draining:
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        self._stopping = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Stop when nothing is in flight and nobody asks any more, or the time for that is over."""
        if self._stopping is not None:
            now = time.monotonic()
            asked = max(self._stopping, self._application.last_refusal)
            quiet = self._application.in_flight == 0 and now - asked > _QUIET
            if quiet or now - self._stopping > self._drain:
                self.should_exit = True
        return await super().on_tick(counter)
