"""``python -m tracklayer.gateway``: the embedded gateway."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import socket
import ssl
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from tracklayer.access import Admission
from tracklayer.errors import TracklayerError
from tracklayer.gateway.admin import Admin
from tracklayer.gateway.connections import Connection, Handler, Server
from tracklayer.gateway.proxy import Proxy
from tracklayer.gateway.table import Table
from tracklayer.gateway.tls import Certificate
from tracklayer.gateway.usage import Usage
from tracklayer.sockets import listen_tcp, listen_unix

if TYPE_CHECKING:
    from tracklayer.gateway.grpc import Listener
    from tracklayer.gateway.haproxy import Front

_SWEEP = 0.25
"""Seconds between two looks for what takes too long."""

_FILES = 65536
"""Connections, both sides together, that the gateway may have if the system lets it."""


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

    :raises PlatformError: the port or the socket is in use, or a file is damaged.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    certificate = (
        Certificate(options.tls_cert, options.tls_key or options.tls_cert)
        if options.tls_cert
        else None
    )
    # The port first: whoever has it owns the files and the socket.
    public = listen_tcp(options.host, options.port)
    table = Table(options.routes)
    admission = Admission(options.state / "keys.json", closed=options.access == "keys")
    usage = Usage(options.state / "usage.db")
    control = listen_unix(options.admin)
    _allow_connections()
    proxy = Proxy(table, admission, usage, patience=options.timeout)
    front = _front(options, public, certificate, admission)

    handlers: tuple[Handler, Handler] = (
        proxy.handed_over if front else proxy,
        Admin(table, proxy, front.settle if front else None),
    )
    servers = [
        Server(handler, limit=options.max_body, patience=options.timeout) for handler in handlers
    ]
    listener, context = public, certificate.context if certificate else None
    if front is not None:
        listener, context = front.inner(), None
    listeners: list[asyncio.Server] = [await _listen(servers[0], listener, context)]
    keeping = asyncio.create_task(usage.keep())
    grpc: Listener | None = None
    try:
        if front is not None:
            listeners.append(await front.start(table.stats, usage))

            table.follow = partial(front.follow, table.live)
            await front.follow(table.live)
            told = admission.renewals
        # Last: whoever can change a route expects that it is followed.
        listeners.append(await _listen(servers[1], control, None))
        scheme = "https" if certificate else "http"
        sys.stdout.write(
            f"gateway listening on {scheme}://{options.host}:{public.getsockname()[1]}\n"
        )
        sys.stdout.flush()
        if options.grpc_port is not None:
            grpc = await _listen_grpc(options, table, admission, usage, certificate)
        while not stopping.is_set():
            for server in servers:
                server.sweep()
            table.sweep()
            if grpc:
                grpc.sweep()
            renewed = certificate is not None and certificate.renew()
            if front is not None:
                if renewed:
                    await front.renew()
                admission.renew()
                if admission.renewals != told:
                    told = admission.renewals
                    await front.follow(table.live)
            try:
                await asyncio.wait_for(stopping.wait(), _SWEEP)
            except TimeoutError:
                continue
    finally:
        ending = [_stop_http(front, listeners, servers, options.drain)]
        if grpc:
            ending.append(grpc.stop(options.drain))
        await asyncio.gather(*ending)
        table.close()
        usage.close()
        await keeping
        options.admin.unlink(missing_ok=True)


async def _stop_http(
    front: Front | None, listeners: list[asyncio.Server], servers: list[Server], drain: float
) -> None:
    if front is not None:  # first, since it hands over to the servers
        await front.stop()
    for listener in listeners:
        listener.close()
    await asyncio.gather(*(server.stop(drain) for server in servers))


def _front(
    options: argparse.Namespace,
    public: socket.socket,
    certificate: Certificate | None,
    admission: Admission,
) -> Front | None:
    if options.proxy == "embedded":
        return None
    from tracklayer.gateway.haproxy import Front

    folder = options.admin.with_suffix(".haproxy")
    limits = {"patience": options.timeout, "drain": options.drain}
    return Front(folder, public, certificate, admission, **limits)


async def _listen_grpc(
    options: argparse.Namespace,
    table: Table,
    admission: Admission,
    usage: Usage,
    certificate: Certificate | None,
) -> Listener:
    # In a thread, since it takes its time: HTTP is served meanwhile.
    await asyncio.to_thread(import_module, "tracklayer.gateway.grpc")
    from tracklayer.gateway.grpc import Listener

    listener = Listener(table, admission, usage, limit=options.max_body, patience=options.timeout)
    port = await listener.listen(options.host, options.grpc_port, certificate)
    sys.stdout.write(f"gateway speaks gRPC on {options.host}:{port}\n")
    sys.stdout.flush()
    return listener


async def _listen(
    server: Server, listener: socket.socket, context: ssl.SSLContext | None
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if listener.family == socket.AF_UNIX:
        return await loop.create_unix_server(lambda: Connection(server), sock=listener)
    return await loop.create_server(lambda: Connection(server), sock=listener, ssl=context)


def _allow_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(_FILES, hard) if hard != resource.RLIM_INFINITY else _FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tracklayer.gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0: a free one")
    parser.add_argument("--grpc-port", type=int, help="port for gRPC; 0: a free one; default: none")
    parser.add_argument("--admin", type=Path, required=True, help="unix socket to administer it")
    parser.add_argument("--routes", type=Path, required=True, help="file that keeps the routes")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder of the callers' keys and of their usage"
    )
    parser.add_argument(
        "--access", choices=["open", "keys"], default="open", help="keys: every caller needs one"
    )
    parser.add_argument(
        "--proxy",
        choices=["embedded", "haproxy"],
        default="embedded",
        help="haproxy: one that is installed here takes the connections",
    )
    parser.add_argument("--tls-cert", type=Path, help="certificate with its chain, PEM: HTTPS")
    parser.add_argument("--tls-key", type=Path, help="its key, PEM; default: in the same file")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for a server")
    parser.add_argument("--drain", type=float, default=30.0, help="seconds to finish at a stop")
    parser.add_argument("--max-body", type=int, default=64 << 20, help="bytes of a request's body")
    return parser


if __name__ == "__main__":
    sys.exit(main())
