"""What a proxy in front found out about a request that it handed over."""

from __future__ import annotations

from dataclasses import dataclass

from tracklayer.gateway.http1 import CALLER_HEADER, PASSAGE_HEADER
from tracklayer.gateway.request import Request

_NAME = PASSAGE_HEADER.lower().encode()
_CALLER = CALLER_HEADER.lower().encode()
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

        A request that no server of its version has taken comes as it was sent to them: who asks is
        in the fields that they get, and so is the beginning of the path, which is put back.
        """
        fields = {low: value.decode("latin-1") for low, _, value in request.headers}
        if _NAME not in fields:
            request.target = fields[b"x-forwarded-prefix"].encode() + request.target
            peer, scheme = fields[b"x-forwarded-for"], fields[b"x-forwarded-proto"]
            return cls(peer, scheme, fields.get(_CALLER), -1, 0)
        request.headers = [field for field in request.headers if field[0] != _NAME]
        words = fields[_NAME].split(" ")
        peer, scheme, caller, turn, wait = (w if w != _NOTHING else "" for w in words)
        return cls(peer, scheme, caller or None, int(turn or -1), int(wait or 0))
