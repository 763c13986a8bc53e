"""The gateway: one stable URL a project, in front of model servers that come and go.

``python -m tracklayer.gateway`` runs it; :class:`GatewayClient` tells a running one which servers
answer for a project.
"""

from tracklayer.gateway.client import GatewayClient, Switched
from tracklayer.gateway.routes import Route

__all__ = ["GatewayClient", "Route", "Switched"]
