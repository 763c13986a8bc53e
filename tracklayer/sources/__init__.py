"""From a handle in a spec to pinned, verified files in the store.

A handle begins with a scheme; the scheme names a class in ``SCHEMES``, or the entry point of a
connector in the group ``tracklayer.sources``. It is imported when it is needed.
"""

from __future__ import annotations

from tracklayer.sources.fetching import Fetched, fetch
from tracklayer.sources.protocol import (
    Context,
    Credential,
    Credentials,
    Limits,
    Local,
    Progress,
    Remote,
    Source,
    Stream,
    Transfer,
)
from tracklayer.sources.registry import SCHEMES, parse

__all__ = [
    "SCHEMES",
    "Context",
    "Credential",
    "Credentials",
    "Fetched",
    "Limits",
    "Local",
    "Progress",
    "Remote",
    "Source",
    "Stream",
    "Transfer",
    "fetch",
    "parse",
]
