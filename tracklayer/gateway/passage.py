"""What a proxy in front found out about a request that it handed over."""

from __future__ import annotations

from dataclasses import dataclass

from tracklayer.gateway.http1 import PASSAGE_HEADER
from tracklayer.gateway.request import Request

_NAME = PASSAGE_HEADER.lower().encode()
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Passage:
    """What needs no finding out any more.

    :param peer: the caller's address.
    :param scheme: that it speaks.
    :param caller: who it is, by a key that opens the project; None: that is not known.
    :param turn: the version that has this turn; -1: that is not known.
    :param wait: seconds until the caller may ask again; 0: it may.
    """

    peer: str
    scheme: str
    caller: str | None
    turn: int
    wait: int

    @classmethod
    def of(cls, request: Request) -> Passage:
        """Take it from the request's own field, which is nobody else's business.

        The path is put together again, where its beginning is in the field.
        """
        [value] = [value for low, _, value in request.headers if low == _NAME]
        request.headers = [field for field in request.headers if field[0] != _NAME]
        words = value.decode("latin-1").split(" ")
        peer, scheme, caller, turn, wait, prefix = (w if w != _NOTHING else "" for w in words)
        request.target = prefix.encode() + request.target
        return cls(peer, scheme, caller or None, int(turn or -1), int(wait or 0))
