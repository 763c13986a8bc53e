"""How an answer looks in HTTP/1.1."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

from tracklayer.serving.app import Exchange
from tracklayer.serving.http import Reply

_JSON = "application/json"
_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_OK = _LINES[200] + f"content-type: {_JSON}\r\ncontent-length: ".encode()


class Clock:
    """The header ``date``, as of the last tick."""

    def __init__(self) -> None:
        self.tick()

    def tick(self) -> None:
        """Read the system's clock."""
        self.date = f"\r\ndate: {formatdate(usegmt=True)}\r\n".encode()


def head_of(exchange: Exchange, reply: Reply, clock: Clock) -> bytes:
    """The line and the headers of an answer."""
    plain = reply.status == 200 and reply.content_type == _JSON and not reply.headers
    if plain and exchange.keep_alive and b"connection" not in exchange.headers:
        return b"%b%d%b\r\n" % (_OK, len(reply.body), clock.date)
    fields = {"content-type": reply.content_type, **reply.headers}
    if not exchange.keep_alive:
        fields["connection"] = "close"
    elif exchange.headers.get(b"connection", b"").lower() == b"keep-alive":
        fields["connection"] = "keep-alive"  # what clients of HTTP/1.0 wait for
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    text = f"{lines}content-length: {len(reply.body)}".encode("latin-1")
    return b"%b%b%b\r\n" % (_LINES[reply.status], text, clock.date)
