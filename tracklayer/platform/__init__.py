"""The platform on one machine: starting, stopping and looking at it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once: the function has the name of its module, which would take its place.
from tracklayer.platform.sweep import sweep as sweep

if TYPE_CHECKING:
    from tracklayer.platform.airflow import Credentials as Credentials
    from tracklayer.platform.embedded import Addresses as Addresses
    from tracklayer.platform.embedded import ProcessStatus as ProcessStatus
    from tracklayer.platform.embedded import addresses as addresses
    from tracklayer.platform.embedded import credentials as credentials
    from tracklayer.platform.embedded import down as down
    from tracklayer.platform.embedded import status as status
    from tracklayer.platform.embedded import supervisor as supervisor
    from tracklayer.platform.embedded import up as up
    from tracklayer.platform.machine import Check as Check
    from tracklayer.platform.machine import doctor as doctor
    from tracklayer.platform.services import champion_follows as champion_follows
    from tracklayer.platform.services import endpoint as endpoint
    from tracklayer.platform.services import gateway as gateway
    from tracklayer.platform.services import ledger as ledger
    from tracklayer.platform.services import rollout as rollout

# Imported when they are asked for: who goes back to a version has a second for all of it.
_PUBLIC = {
    "airflow": ("Credentials",),
    "embedded": (
        *("Addresses", "ProcessStatus", "addresses", "credentials", "down", "status"),
        *("supervisor", "up"),
    ),
    "machine": ("Check", "doctor"),
    "services": ("champion_follows", "endpoint", "gateway", "ledger", "rollout"),
}
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
