"""HAProxy as the gateway's front: it takes the connections and passes the usual requests on.

``Front`` runs one HAProxy and keeps it at what the routing table says. What is not usual HAProxy
gives to the gateway's own proxy, by a socket of its own: it has the same rules for everything, so
that only the way of the usual request is written twice (``front.lua``).
"""

from tracklayer.gateway.haproxy.front import Front
from tracklayer.gateway.haproxy.installed import program

__all__ = ["Front", "program"]
