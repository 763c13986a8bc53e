"""``python -m tracklayer.gateway``: the embedded gateway."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from tracklayer.errors import TracklayerError
from tracklayer.gateway.admin import Admin
from tracklayer.gateway.proxy import Proxy
from tracklayer.gateway.table import Table
from tracklayer.sockets import listen_tcp, listen_unix

_KEEP_ALIVE = 75
"""Seconds for which a connection may be idle, and which the head of a request may take."""


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options))
    except TracklayerError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


async def serve(options: argparse.Namespace) -> None:
    """Serve until a signal; requests that were taken are answered first.

    :raises PlatformError: the port or the socket is in use, or the routes file is damaged.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # The port first: whoever has it owns the routes file and the socket.
    public = listen_tcp(options.host, options.port)
    table = Table(options.routes, timeout=options.timeout)
    admin = listen_unix(options.admin)
    proxy = Proxy(table, limit=options.max_body, timeout=options.timeout)
    runners = [
        web.ServerRunner(
            web.Server(
                handler,
                access_log=None,
                auto_decompress=False,
                keepalive_timeout=_KEEP_ALIVE,
                lingering_time=2.0,
            ),
            shutdown_timeout=options.drain,
        )
        for handler in (proxy, Admin(table))
    ]
    try:
        for runner, listener in zip(runners, (public, admin), strict=True):
            await runner.setup()
            await web.SockSite(runner, listener).start()
        address = f"http://{options.host}:{public.getsockname()[1]}"
        sys.stdout.write(f"gateway listening on {address}\n")
        sys.stdout.flush()
        await stopping.wait()
    finally:
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        await table.close()
        options.admin.unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tracklayer.gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0: a free one")
    parser.add_argument("--admin", type=Path, required=True, help="unix socket to administer it")
    parser.add_argument("--routes", type=Path, required=True, help="file that keeps the routes")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for a server")
    parser.add_argument("--drain", type=float, default=30.0, help="seconds to finish at a stop")
    parser.add_argument("--max-body", type=int, default=64 << 20, help="bytes of a request's body")
    return parser


if __name__ == "__main__":
    sys.exit(main())
