"""The platform on one machine: starting, stopping and looking at it."""

from tracklayer.platform.airflow import Credentials
from tracklayer.platform.embedded import (
    Addresses,
    ProcessStatus,
    addresses,
    credentials,
    down,
    status,
    supervisor,
    up,
)
from tracklayer.platform.machine import Check, doctor
from tracklayer.platform.services import rollout
from tracklayer.platform.sweep import sweep

__all__ = [
    "Addresses",
    "Check",
    "Credentials",
    "ProcessStatus",
    "addresses",
    "credentials",
    "doctor",
    "down",
    "rollout",
    "status",
    "supervisor",
    "sweep",
    "up",
]
