"""``python -m tracklayer.serving``: one model behind one socket or port."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer.errors import TracklayerError
from tracklayer.sockets import listen_tcp, listen_unix

if TYPE_CHECKING:
    from tracklayer.serving.app import Limits


def main(argv: list[str] | None = None) -> int:
    """Load, warm up, listen, serve until SIGTERM or SIGINT; the exit code."""
    options = _parser().parse_args(argv)
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
    import orjson

    from tracklayer.serving.app import Application, Limits
    from tracklayer.serving.formats import load
    from tracklayer.serving.http import Service
    from tracklayer.serving.server import Server
    from tracklayer.serving.verification import request_for

    with _model(options) as folder:
        model = load(folder, threads=options.threads)
        service = Service(options.name, options.version, model)
        application = Application(service, _limits(options, Limits))
        application.warm_up(orjson.dumps(request_for(model, folder)))
    listener = _listen(options)
    try:
        Server(application, service, drain=options.drain, access_log=options.access_log).run_on(
            listener
        )
    finally:
        listener.close()
        if options.socket:
            options.socket.unlink(missing_ok=True)


@contextmanager
def _model(options: argparse.Namespace) -> Iterator[Path]:
    """The folder of the model; decrypted from the store only for as long as it is loaded."""
    if options.model:
        yield options.model
        return
    from tracklayer.private import temporary
    from tracklayer.store import open_store

    store = open_store()
    with temporary(store.manifest(options.manifest).size) as private:
        store.materialise(options.manifest, private / "model")
        yield private / "model"


def _listen(options: argparse.Namespace) -> socket.socket:
    if options.socket:
        listener = listen_unix(options.socket)
        address = str(options.socket)
    else:
        listener = listen_tcp(options.host, options.port)
        address = f"http://{options.host}:{listener.getsockname()[1]}"
    sys.stdout.write(f"serving {options.name} version {options.version} on {address}\n")
    sys.stdout.flush()
    return listener


def _limits(options: argparse.Namespace, limits: type[Limits]) -> Limits:
    return limits(
        body=options.max_body,
        seconds=options.timeout,
        concurrency=options.concurrency,
        workers=options.workers,
        inline=options.inline / 1000,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tracklayer.serving", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="folder of the model")
    what.add_argument("--manifest", help="digest of the model's files in the store")
    parser.add_argument("--name", required=True, help="name in the URLs")
    parser.add_argument("--version", required=True, help="version in the URLs and answers")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="unix socket to listen on, owner-only")
    where.add_argument("--port", type=int, help="TCP port to listen on; 0: a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address for --port")
    parser.add_argument("--threads", type=_count, default=1, help="threads of one inference")
    parser.add_argument("--workers", type=_count, default=2, help="inferences at a time")
    parser.add_argument(
        "--concurrency", type=_count, default=64, help="requests at a time; more get 503"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one request")
    parser.add_argument("--drain", type=float, default=30.0, help="seconds to finish at a stop")
    parser.add_argument("--max-body", type=_count, default=64 << 20, help="bytes of a request")
    parser.add_argument(
        "--inline",
        type=float,
        default=0.0,
        help="milliseconds below which inferences run in the event loop; 0: always in a thread",
    )
    parser.add_argument("--access-log", action="store_true", help="one line a request")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
