"""Bytes that a connector brings by a protocol of its own, on their way into the store."""

from __future__ import annotations

import hashlib
import time

from tracklayer.errors import SourceError
from tracklayer.sources.progress import Meter
from tracklayer.sources.protocol import Limits, Stream
from tracklayer.store import Blob, File, Store

_KINDS = ("sha256", "md5")


def pour(stream: Stream, store: Store, meter: Meter, limits: Limits) -> File:
    """Store a stream, from its beginning again where it breaks off.

    :raises SourceError: it breaks off each time, or is not what was promised.
    :raises StoreError: the store is full or not writable.
    """
    meter.expect(stream.size or 0, files=1)
    for number in range(1, limits.tries + 1):
        try:
            blob = _once(stream, store, meter)
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            if number == limits.tries:
                raise SourceError(
                    f"{stream.path} could not be fetched (try {number}): {why}"
                ) from error
            pause = min(limits.backoff * 2 ** (number - 1), limits.pause)
            meter.say(f"{stream.path}: {why}; again in {pause:.1f} s")
            meter.tick()
            time.sleep(pause)
        else:
            break
    meter.finished()
    return File(path=stream.path, executable=stream.executable, **blob.model_dump())


def _once(stream: Stream, store: Store, meter: Meter) -> Blob:
    kind, _, promised = (stream.digest or "sha256:").partition(":")
    if kind not in _KINDS:
        raise SourceError(f"{stream.path}: a digest of the kind {kind} cannot be checked")
    found, size = hashlib.new(kind, usedforsecurity=False), 0
    with store.create() as writer, meter.receiving() as count:
        for data in stream.open():
            writer.write(data)
            found.update(data)
            size += len(data)
            count(len(data))
            meter.tick()
        if stream.size is not None and size < stream.size:
            raise ConnectionError("the connection ended early")
        if stream.size not in (None, size):
            raise SourceError(f"{stream.path} has {size} bytes, expected {stream.size}")
        if promised not in ("", found.hexdigest()):
            raise SourceError(
                f"{stream.path} is not what was pinned: its digest is "
                f"{kind}:{found.hexdigest()}, expected {stream.digest}"
            )
        return writer.commit()
