"""One file on its way into the store: what is promised, what is there, and what an answer means."""

from __future__ import annotations

import re
from contextlib import ExitStack

from urllib3 import BaseHTTPResponse

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import shown, split
from tracklayer.sources.http import Body, Place, Unavailable, wait_asked_for
from tracklayer.sources.progress import Meter, amount
from tracklayer.sources.promise import Hash, Promise, check_room
from tracklayer.sources.protocol import Limits, Remote
from tracklayer.sources.spans import Span, Spans
from tracklayer.store import Blob, Draft, Store

CHUNK = Draft.CHUNK
FIRST = (1 << 20) // CHUNK  # chunks to ask for where the size is not known
SMALL = 4 << 20  # bytes up to which a file is asked for as a whole
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_EXPIRED = {400, 401, 403, 404, 410}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Again(Exception):
    """What has come so far does not fit what comes now: begin anew, without blame."""


class Incoming:
    """A remote file. Small ones and those of servers without ranges come as a whole; of the others
    a draft in the store holds the chunks that are there, also after this process.

    Not safe for threads, except :meth:`read_span` for spans that do not overlap.
    """

    def __init__(self, remote: Remote, store: Store, limits: Limits, meter: Meter) -> None:
        self.remote = remote
        self._store, self._limits, self._meter = store, limits, meter
        self.size = remote.size
        self._promise = Promise(remote)
        self.whole = False  # the server does not give parts
        self.opened = False  # an answer showed that it does
        self.stale = False  # what is there is of no use
        self.blob: Blob | None = None
        self.busy = self.restarts = self.wrongs = 0
        self.spans = Spans()
        self._held = ExitStack()
        self._also: Hash | None = None
        self._draft: Draft | None = None
        self._validator: str | None = None
        self._counted = 0
        self._start = ""
        self._direct: Place | None = None
        self._check_size(self.size)

    @property
    def shown(self) -> str:
        """The file for people."""
        return shown(self._start) or self.remote.path

    @property
    def large(self) -> bool:
        """Whether it takes more than one small answer, as far as known."""
        return self.size is None or self.size > SMALL

    @property
    def complete(self) -> bool:
        """Whether the draft lacks nothing."""
        return self._draft is not None and not self._draft.missing()

    def place(self) -> Place:
        """Where to ask: where the last redirect ended, or the source's own address."""
        if self._direct:
            return self._direct
        url = self.remote.url
        self._start = url if isinstance(url, str) else url()
        split(self._start)
        return Place(self._start, self._start, self.remote.headers)

    def first(self) -> Span | None:
        """What to ask for to begin with; None is all of it.

        :raises StoreError: the store is full or not writable.
        """
        if self.whole or not self.large:
            return None
        if self.size is not None and self._promise.kind:
            self._open_draft(self.size)
            return self.spans.take(1)
        return Span(0, FIRST)

    def headers(self, span: Span | None) -> dict[str, str]:
        """What to ask the server for; waits where that could not be used yet."""
        if span is None:
            return {}
        if self._draft:
            self._draft.pace(span.first)
        last = span.end * CHUNK
        if self.size is not None:
            last = min(last, self.size)
        headers = {"Range": f"bytes={span.first * CHUNK}-{last - 1}"}
        return headers | ({"If-Range": self._validator} if self._validator else {})

    def accept(
        self, response: BaseHTTPResponse, asked: Place, place: Place, span: Span | None
    ) -> bool:
        """Judge an answer before its body is read. True: it is the span; False: it is all of it.

        :param asked: the place that was asked, ``place`` the one that answered.

        :raises Again: it does not fit what is there.
        :raises Wrong: it does not fit what was promised.
        :raises Unavailable: the server is busy.
        :raises SourceError: the server refuses, or there is no room.
        """
        status = response.status
        if status in _AGAIN:
            raise Unavailable(f"the server answered {status}", wait_asked_for(response.headers))
        if asked.hops and status in _EXPIRED:  # an address that was good until now
            if self._direct is asked:
                self._direct = None
            raise Unavailable(f"the server answered {status} where it had redirected to")
        if (
            status in (200, 206)
            and response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")
            and not self._promise.kind
        ):
            raise SourceError(
                f"{self.shown} comes compressed, although that was not asked for",
                hint="Without a digest nobody could tell what it should be.",
            )
        if status == 206 and span:
            self._accept_part(response, span)
        elif status == 200:
            self._accept_whole(response, span)
        elif status == 416 and span and response.headers.get("Content-Range") == "bytes */0":
            self.whole = True
            raise Again("it is empty")
        elif status in (206, 416):
            self.whole = True
            raise Again("the server does not give the part that was asked for")
        elif status == 412:
            raise SourceError(
                f"{self.shown} is not what was listed: it changed meanwhile",
                hint="Fetch it again to take it as it is now, if it may be another.",
            )
        else:
            raise SourceError(
                f"{self.shown}: the server answered {status} {response.reason or ''}".rstrip(),
                hint="Is the address right, and may whoever asks read it?",
            )
        if place is not asked:
            self._direct = place
        return status == 206

    def read_span(self, body: Body, span: Span) -> None:
        """Write the chunks that an accepted answer carries to the draft.

        :raises Unavailable: it broke off or stalled; ``span`` is what is left.
        """
        assert self._draft is not None
        assert self.size is not None
        buffer = memoryview(bytearray(FIRST * CHUNK))
        while span and not self.stale:
            end = min(self.size, span.end * CHUNK)
            part, filled = buffer[: end - span.first * CHUNK], 0
            try:
                while filled < len(part):
                    if not (data := body.read(len(part) - filled)):
                        raise Unavailable("the connection ended early")
                    part[filled : filled + len(data)] = data
                    filled += len(data)
            finally:
                self._write(part[:filled], span)

    def _write(self, data: memoryview, span: Span) -> None:
        """Put the chunks that are whole into the draft."""
        assert self._draft is not None
        assert self.size is not None
        while data and span:
            count = min(CHUNK, self.size - span.first * CHUNK)
            if len(data) < count:
                return
            with self._meter.receiving() as received:
                received(count)
                self._draft.write(span.first, data[:count])
            self._counted += count
            span.first += 1
            data = data[count:]

    def read_whole(self, body: Body) -> None:
        """Store what an accepted answer carries.

        :raises Unavailable: it broke off or stalled.
        :raises Wrong: it is not what was promised.
        """
        digest, received = self._promise.hash(), 0
        with self._meter.receiving() as count, self._store.create() as writer:
            while data := body.read(CHUNK):
                writer.write(data)
                if digest:
                    digest.update(data)
                received += len(data)
                self._check_size(received)
                count(len(data))
            self._promise.check_size(received)
            if digest:
                self._promise.check_digest(digest.hexdigest())
            self.blob = writer.commit()

    def finish(self) -> Blob:
        """Commit the draft, of which nothing is missing.

        :raises Wrong: it is not what was promised.
        """
        assert self._draft is not None
        blob = self._draft.commit()
        self.release()
        found = self._also.hexdigest() if self._also else blob.digest.partition(":")[2]
        self._promise.check_digest(found)
        return blob

    def restart(self) -> None:
        """Forget what is there."""
        if self._draft:
            self._draft.discard()
        self.release()
        self._meter.found(-self._counted)
        self._validator, self._direct, self._counted = None, None, 0
        if self.size is not None and self.remote.size is None:
            self._meter.expect(-self.size)
        self.size = self.remote.size
        self.spans, self.opened, self.stale = Spans(), False, False

    def release(self) -> None:
        """Let go of the draft; what is there is kept for the next time."""
        self._held.close()
        self._draft = None

    def _accept_part(self, response: BaseHTTPResponse, span: Span) -> None:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != span.first * CHUNK or int(match[2]) >= span.end * CHUNK:
            self.whole = True
            raise Again("the server gives another part than was asked for")
        total = self.size if match[3] == "*" else int(match[3])
        found = _validator(response)
        if self.opened:
            if total != self.size or found != self._validator:
                raise Again("it changed meanwhile")
            return
        if total is None or not (self._promise.kind or found):
            self.whole = True
            raise Again("the server does not say what its parts are of")
        self._promise.check_size(total)
        self._validator = found
        if self._draft is None:
            self._check_size(total)
            check_room(self.shown, total, self._store.root)
            if self.size is None:
                self._meter.expect(total)
            self.size = total
            self._open_draft(total)
            taken = self.spans.take_first(len(span))  # they may be there already
            span.first, span.end = taken.first, taken.end
        self.opened = True

    def _accept_whole(self, response: BaseHTTPResponse, span: Span | None) -> None:
        if self.opened:
            changed = _validator(response) != self._validator
            self.whole = not changed
            raise Again("it changed meanwhile" if changed else "the server gives no parts any more")
        length = response.length_remaining
        self._promise.check_size(length)
        self._check_size(length)
        if length and length > SMALL:  # for all that are promised there was room at the start
            check_room(self.shown, length, self._store.root)
        if span is not None:
            self.restart()
            self.whole = True
        if self.size is None and length is not None:
            self._meter.expect(length)
            self.size = length

    def _open_draft(self, size: int) -> None:
        """The draft is named by what its content is: a digest, or the state of an address."""
        what = self.remote.digest or f"{shown(self._start)} {self._validator}"
        self._also = self._promise.hash() if self._promise.kind != "sha256" else None
        also = [self._also] if self._also else []
        draft = self._store.draft(f"{what} {size}", size, also=also)
        self._draft = self._held.enter_context(draft)
        missing = self._draft.missing()
        self.spans = Spans(missing)
        there = size - sum(min(CHUNK, size - index * CHUNK) for index in missing)
        self._counted = there
        self._meter.found(there)

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self._limits.size:
            raise SourceError(f"{self.shown} is larger than {amount(self._limits.size)}")


def _validator(response: BaseHTTPResponse) -> str | None:
    tag = response.headers.get("ETag", "")
    strong = tag if tag and not tag.startswith("W/") else None
    return strong or response.headers.get("Last-Modified")
