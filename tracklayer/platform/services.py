"""The servers of a project, on this machine's supervisor and gateway."""

from __future__ import annotations

from tracklayer.gateway import GatewayClient
from tracklayer.gateway.rollout import Rollout
from tracklayer.platform.embedded import supervisor
from tracklayer.platform.variables import of_store
from tracklayer.settings import settings


def rollout(project: str) -> Rollout:
    """How versions of a project take over from each other here."""
    here = settings()
    return Rollout(
        project,
        supervisor=supervisor(),
        gateway=GatewayClient(here.sockets / "gateway.sock"),
        env={"TRACKLAYER_HOME": str(here.home)},
        secrets=of_store(here),
        sockets=here.sockets,
        logs=here.logs,
    )
