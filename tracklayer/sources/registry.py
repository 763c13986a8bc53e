"""Which class reads which handle: by its scheme."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import shown
from tracklayer.sources.protocol import Source

GROUP = "tracklayer.sources"
SCHEMES = {
    "path": "tracklayer.sources.path:PathSource",
    "hf": "tracklayer.sources.hf:HuggingFaceSource",
    "kaggle": "tracklayer.sources.kaggle:KaggleSource",
    "s3": "tracklayer.sources.s3:S3Source",
    "https": "tracklayer.sources.https:HttpsSource",
    "http": "tracklayer.sources.https:HttpsSource",  # this machine only, see there
    "git+https": "tracklayer.sources.git:GitSource",
    "git+ssh": "tracklayer.sources.git:GitSource",
    "git+file": "tracklayer.sources.git:GitSource",
}


def parse(handle: str) -> Source:
    """The source of a handle, by its syntax alone.

    :raises SourceError: an unknown scheme, a connector that cannot be imported, or a handle that
        its scheme does not accept.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", handle)
    scheme = match[1] if match else ""
    if dotted := SCHEMES.get(scheme):
        module, _, name = dotted.partition(":")
        source: type[Source] = getattr(import_module(module), name)
        return source.parse(handle)
    if point := _connectors().get(scheme):
        return _load(point).parse(handle)
    known = {**SCHEMES, **_connectors()}
    near = difflib.get_close_matches(scheme, known, 1)
    raise SourceError(
        f"unknown kind of source: {shown(handle)!r}",
        hint=(f"Did you mean {near[0]}:? " if near else "")
        + "A source begins with: "
        + ", ".join(f"{name}:" for name in known if name != "http"),
    )


def _load(point: EntryPoint) -> type[Source]:
    try:
        source: type[Source] = point.load()
    except (ImportError, AttributeError) as error:
        raise SourceError(
            f"the connector of {point.name}: ({point.value}) cannot be imported: {error}",
            hint=f"It is the entry point {point.name} of the group {GROUP}; is its package whole?",
        ) from error
    return source


@cache
def _connectors() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
