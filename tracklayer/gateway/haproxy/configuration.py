"""What HAProxy is started with: ``haproxy.cfg``, filled in."""

from __future__ import annotations

import json
import os
import re
import resource
from pathlib import Path
from string import Template

from tracklayer.gateway.http1 import CALLER_HEADER, NOT_TO_BACKEND, PASSAGE_HEADER, VERSION_HEADER
from tracklayer.gateway.request import FIELDS

CERTIFICATE = "certificate.pem"

_HERE = Path(__file__).parent

_NOT_TO_BACKEND = sorted(
    name.decode()
    for name in NOT_TO_BACKEND
    - {each.lower().encode() for each in (CALLER_HEADER, PASSAGE_HEADER)}
    - {b"connection", b"transfer-encoding", b"upgrade", b"expect", b"content-length"}
    - {name for name in NOT_TO_BACKEND if name.startswith(b"x-forwarded-")}
)
"""What HAProxy drops; the rest it writes itself, or does not pass on requests with it."""

_THREADS = 4
"""At most: all share one state of Lua."""

_CONNECTIONS = 20_000

# What is said when there is no server's answer, in the form of the Open Inference Protocol.
_ERRORS = {
    400: "this is no HTTP/1.1 that is understood here, its head is too large, or its caller left",
    408: "the request did not come in time",
    500: "the gateway failed on this; its log says why",
    502: "the server of this project ended before it answered",
    503: "no server of this project answers now",
    504: "the server of this project took too long",
}


def configuration(
    folder: Path, *, listener: int, tls: bool, patience: float, drain: float, lanes: int
) -> str:
    """The text of the configuration.

    :param folder: HAProxy's own; only its owner can read it.
    :param listener: descriptor of the public socket, which HAProxy inherits.
    :param tls: whether it speaks HTTPS, with the certificate in ``folder``.
    :param patience: seconds to wait for a server, and for the next piece from a caller.
    :param drain: seconds to finish at a stop.
    :param lanes: backends that a version can be given.
    """
    here = _word(folder)
    filled = Template((_HERE / "haproxy.cfg").read_text()).substitute(
        folder=here,
        front=_word(_HERE / "front.lua"),
        listener=listener,
        scheme="https" if tls else "http",
        tls=f" ssl crt {here}/{CERTIFICATE} alpn http/1.1" if tls else "",
        connections=_connections(),
        fields=FIELDS + 1,  # the first line counts as one
        threads=min(_THREADS, len(os.sched_getaffinity(0))),
        errors="\n".join(_error(status, message) for status, message in _ERRORS.items()),
        # Longer than our own proxy's, which then says what was wrong.
        patience=_ms(patience),
        client=_ms(patience + 2),
        whole=_ms(patience + 5),
        drain=_ms(drain),
        dropped=f"^({'|'.join(_NOT_TO_BACKEND)})$",
        caller=CALLER_HEADER,
        version=VERSION_HEADER,
        passage=PASSAGE_HEADER,
    )
    backup = f"    server whole unix@{here}/inner.sock backup"
    return filled + "".join(f"backend {lane(n)} from lane\n{backup}\n" for n in range(lanes))


def lane(number: int) -> str:
    """The name of a backend that a version can be given."""
    return f"lane{number}"


def _word(path: Path) -> str:
    """A path as one word of the configuration (configuration manual, section 2.2)."""
    return re.sub(r"([\s\\#\"'])", r"\\\1", str(path))


def _error(status: int, message: str) -> str:
    text = json.dumps({"error": message}).replace('"', '\\"')
    more = " hdr Retry-After 1" if status == 503 else ""
    return (
        f'    http-error status {status} content-type "application/json; charset=utf-8"'
        f' string "{text}" hdr Server tracklayer{more}'
    )


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _connections() -> int:
    """As many as the system lets it have, two descriptors each, and some to spare."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return _CONNECTIONS
    return max(100, min(_CONNECTIONS, hard // 2 - 200))
