"""``python -m tracklayer.serving``: models behind one socket or port."""

from __future__ import annotations

import argparse
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tracklayer.errors import TracklayerError
from tracklayer.sockets import listen_tcp, listen_unix

if TYPE_CHECKING:
    from tracklayer.serving.app import Application, Limits
    from tracklayer.serving.guard import Guard
    from tracklayer.serving.http import Service

_SOURCE = re.compile(r"(?:([A-Za-z0-9][\w.-]*)(?:@([\w.-]+))?=)?(.+)", re.DOTALL)


_PORTS = 65_535


class Source(NamedTuple):
    """A model on the command line: its name and version, and its folder or manifest."""

    name: str
    version: str
    what: Path | str


def main(argv: list[str] | None = None) -> int:
    """Load, warm up, listen, serve until SIGTERM or SIGINT; the exit code."""
    options = _options(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        serve(options)
    except TracklayerError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def serve(options: argparse.Namespace) -> None:
    """Serve until a signal; requests that were taken are answered first.

    :raises ModelError: no model, or one that cannot answer its golden request.
    :raises PlatformError: the socket or port cannot be listened on.
    """
    from tracklayer.serving.server import Server

    application = _application(options)
    listener = _listen(options, application)
    try:
        Server(application, drain=options.drain, grpc=options.grpc).run_on(listener)
    finally:
        listener.close()
        if options.socket:
            options.socket.unlink(missing_ok=True)
    if application.busy:
        # The interpreter does not wait for these threads, and C++ aborts when they end with it.
        sys.stderr.flush()
        os._exit(0)


def _application(options: argparse.Namespace) -> Application:
    """Everything loaded and warm."""
    from tracklayer.serving.app import Application, Limits

    guard = _guard(options)
    loaded = [_load(source, options) for source in options.sources]
    services = [service for service, _ in loaded]
    if options.access_log:
        logging.getLogger("tracklayer.serving").setLevel(logging.INFO)
    limits, log = _limits(options, Limits), options.access_log
    application = Application(services, limits, access_log=log, guard=guard)
    application.warm_up(*(request for _, request in loaded))
    return application


def _guard(options: argparse.Namespace) -> Guard | None:
    """Who may ask."""
    if options.keys is None:
        return None
    from tracklayer.serving.guard import Guard

    return Guard(options.keys)


def _load(source: Source, options: argparse.Namespace) -> tuple[Service, bytes]:
    """A model and the golden request that it has to answer first."""
    import orjson

    from tracklayer.serving.batching import Batched, cores, pays
    from tracklayer.serving.formats import load
    from tracklayer.serving.http import Service
    from tracklayer.serving.open_inference import read
    from tracklayer.serving.verification import request_for

    with _files(source) as folder:
        model = load(folder, threads=options.threads, allow=options.allow)
        request = request_for(model, folder)
    if options.batch > 1 and pays(model, read(model, request).feeds):
        slots = min(options.workers, cores())
        delay = options.batch_delay / 1000
        model = Batched(model, slots=slots, most=options.batch, delay=delay)
    return Service(source.name, source.version, model), orjson.dumps(request)


@contextmanager
def _files(source: Source) -> Iterator[Path]:
    """The folder of the model; decrypted from the store only for as long as it is loaded."""
    if isinstance(source.what, Path):
        yield source.what
        return
    from tracklayer.private import temporary
    from tracklayer.store import open_store

    store = open_store()
    with temporary(store.manifest(source.what).size) as private:
        store.materialise(source.what, private / "model")
        yield private / "model"


def _listen(options: argparse.Namespace, application: Application) -> socket.socket:
    if options.socket:
        listener = listen_unix(options.socket)
        address = str(options.socket)
    else:
        listener = listen_tcp(options.host, options.port)
        address = f"http://{options.host}:{listener.getsockname()[1]}"
    served = ", ".join(f"{each.name} version {each.version}" for each in application.services)
    sys.stdout.write(f"serving {served} on {address}\n")
    sys.stdout.flush()
    return listener


def _limits(options: argparse.Namespace, limits: type[Limits]) -> Limits:
    return limits(
        body=options.max_body,
        seconds=options.timeout,
        concurrency=options.concurrency,
        connections=options.connections,
        workers=options.workers,
        inline=options.inline / 1000,
        batch=options.batch,
    )


def _options(argv: list[str] | None) -> argparse.Namespace:
    from tracklayer.serving.formats import ALLOW

    parser = argparse.ArgumentParser(prog="python -m tracklayer.serving", description=__doc__)
    which = "may be given several times; the first answers where a path names no model"
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME[@VERSION]=]FOLDER",
        help=f"folder of a model; {which}",
    )
    parser.add_argument(
        "--manifest",
        action="append",
        default=[],
        metavar="[NAME[@VERSION]=]DIGEST",
        help="digest of a model's files in the store; as --model, and after those",
    )
    parser.add_argument("--name", help="name in the URLs of the models given without one")
    parser.add_argument("--version", help="version in the URLs and answers, likewise")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="unix socket to listen on, owner-only")
    where.add_argument("--port", type=_port, help="TCP port to listen on; 0: a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address for --port")
    parser.add_argument(
        "--grpc", metavar="ADDRESS", help="gRPC beside HTTP: unix:/path or host:port; 0: a free one"
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="callers need a key of this file, which `tracklayer keys create` writes; for a server "
        "without the gateway in front",
    )
    parser.add_argument("--threads", type=_count, default=1, help="threads of one inference")
    parser.add_argument("--workers", type=_count, default=2, help="inferences of a model at a time")
    parser.add_argument(
        "--concurrency", type=_count, default=64, help="requests at a time; more get 503"
    )
    parser.add_argument(
        "--connections", type=_count, default=1000, help="open at a time; more get 503"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one request")
    parser.add_argument("--drain", type=float, default=30.0, help="seconds to finish at a stop")
    parser.add_argument("--max-body", type=_count, default=64 << 20, help="bytes of a request")
    parser.add_argument(
        "--inline",
        type=float,
        default=0.25,
        help="milliseconds below which inferences run in the event loop; 0: always in a thread",
    )
    parser.add_argument(
        "--batch",
        type=_count,
        default=32,
        help="rows of a run that joins requests which wait, where that pays; 1: none are joined",
    )
    parser.add_argument(
        "--batch-delay",
        type=float,
        default=2.0,
        help="milliseconds that a busy model's next run waits for as many requests as the last had",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=ALLOW,
        help="what may run although it came with the model; code: its handler.py",
    )
    parser.add_argument("--access-log", action="store_true", help="one line a request")
    options = parser.parse_args(argv)
    options.sources = [
        *(_source(parser, options, text, Path) for text in options.model),
        *(_source(parser, options, text, str) for text in options.manifest),
    ]
    if not options.sources:
        parser.error("--model or --manifest is needed")
    known = [(source.name, source.version) for source in options.sources]
    for name, version in known:
        if known.count((name, version)) > 1:
            parser.error(f"{name} version {version} is given twice")
    return options


def _source(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    text: str,
    kind: type[Path] | type[str],
) -> Source:
    named = _SOURCE.fullmatch(text)
    name, version, what = named.groups() if named else (None, None, text)
    name, version = name or options.name, version or options.version
    if not name or not version:
        parser.error(
            f"{text}: give it a name and a version, NAME@VERSION=, or --name and --version"
        )
    return Source(name, version, kind(what))


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _PORTS:
        raise argparse.ArgumentTypeError(f"must be from 0 to {_PORTS}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
