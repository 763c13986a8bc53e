"""The versions of a project, on this machine's supervisor and gateway."""

from __future__ import annotations

import socket
from re import fullmatch
from typing import TYPE_CHECKING

from tracklayer.access.keys import NAME
from tracklayer.errors import ProjectError, TrackingError
from tracklayer.gateway import GatewayClient
from tracklayer.gateway.endpoint import Endpoint
from tracklayer.gateway.progress import Journal
from tracklayer.gateway.releases import Releases
from tracklayer.settings import settings
from tracklayer.tracking.ledger import Ledger

if TYPE_CHECKING:
    from tracklayer.gateway.rollout import Rollout
    from tracklayer.gateway.servers import Servers


def ledger() -> Ledger:
    """What was deployed here, by whom, and who answered after it."""
    return Ledger(settings().home / "ledger.jsonl")


def gateway() -> GatewayClient:
    """The gateway of this machine's platform."""
    return GatewayClient(settings().sockets / "gateway.sock")


def endpoint(project: str) -> Endpoint:
    """A project's stable address, and what stands behind it.

    :raises ProjectError: no project can have this name.
    """
    if not fullmatch(NAME, project):
        raise ProjectError(
            f"{project!r} cannot be the name of a project",
            hint="`tracklayer status` lists the projects.",
        )
    here = settings()
    return Endpoint(
        project,
        gateway=gateway(),
        servers=lambda: _servers(project),
        releases=Releases(here.gateway_home / "releases" / project),
        journal=Journal(here.gateway_home / "rollouts", project),
        ledger=ledger(),
    )


def rollout(project: str) -> Rollout:
    """How versions of a project take over from each other here."""
    from tracklayer.gateway.rollout import Rollout

    return Rollout(endpoint(project))


def champion_follows(project: str) -> None:
    """Make MLflow's champion the version that answers, if it is another one.

    The gateway is what counts: where MLflow was away when somebody went back to a version, its
    alias follows at the next deployment.

    :raises TrackingError: MLflow does not answer or knows no such version.
    :raises ServiceError: the gateway is not there.
    """
    from tracklayer.tracking import Tracking

    here = settings()
    try:  # at once: the client itself waits for a server that is being started again
        socket.create_connection((here.host, here.mlflow_port), timeout=0.5).close()
    except OSError as error:
        raise TrackingError(f"MLflow does not run: {error.strerror}.") from None
    live = endpoint(project).live()
    if live is not None:
        Tracking(here.mlflow_url).promote(project, live)


def _servers(project: str) -> Servers:
    from tracklayer.gateway.servers import Servers
    from tracklayer.platform.embedded import supervisor
    from tracklayer.platform.variables import of_store

    here = settings()
    return Servers(
        project,
        supervisor=supervisor(),
        env={"TRACKLAYER_HOME": str(here.home)},
        secrets=of_store(here),
        sockets=here.sockets,
        logs=here.logs,
    )
