"""The servers of a project, on this machine's supervisor and gateway."""

from __future__ import annotations

from tracklayer.gateway import GatewayClient
from tracklayer.gateway.rollout import Rollout
from tracklayer.platform.embedded import supervisor
from tracklayer.settings import settings


def rollout(project: str) -> Rollout:
    """How versions of a project take over from each other here."""
    here = settings()
    return Rollout(
        project,
        supervisor=supervisor(),
        gateway=GatewayClient(here.sockets / "gateway.sock"),
        services=here.services,
        sockets=here.sockets,
        logs=here.logs,
    )
