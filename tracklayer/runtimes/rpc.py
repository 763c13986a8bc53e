"""Calls to supervisord: XML-RPC over its unix socket, with a time limit."""

from __future__ import annotations

import http.client
import xmlrpc.client
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from tracklayer.errors import PlatformError

ABSENT = (ConnectionError, FileNotFoundError)
_ANSWER = 10  # seconds


def call(socket: Path, method: str, *arguments: Any) -> Any:
    """A call that needs a running supervisord.

    :raises PlatformError: it does not run, does not answer, or refuses.
    """
    try:
        return ask(socket, method, *arguments)
    except ABSENT as error:
        raise PlatformError(
            "the platform's supervisor does not run", hint="start it: `tracklayer up`"
        ) from error
    except xmlrpc.client.Fault as fault:
        raise PlatformError(f"supervisord refuses {method}: {fault.faultString}") from fault


def ask(socket: Path, method: str, *arguments: Any) -> Any:
    """A call to a supervisord that may be absent or going.

    :raises ConnectionError: nothing listens there.
    :raises FileNotFoundError: there is no socket.
    :raises xmlrpc.client.Fault: it refuses, as it does with everything while it shuts down.
    :raises PlatformError: something listens and does not answer.
    """
    transport = _transport(socket)
    try:
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport)
        return getattr(proxy, f"supervisor.{method}")(*arguments)
    except (TimeoutError, xmlrpc.client.ProtocolError, http.client.HTTPException) as error:
        raise PlatformError(
            f"what listens at {socket} does not answer as supervisord does: {error}",
            hint="is its supervisord stopped or hung? Its number is in supervisord.pid",
        ) from error
    finally:
        transport.close()


def _transport(socket: Path) -> Any:
    transport = SupervisorTransport(serverurl=f"unix://{socket}")
    connect = transport._get_connection

    def limited() -> Any:
        connection = connect()
        connection.connect()
        connection.sock.settimeout(_ANSWER)
        return connection

    transport._get_connection = limited
    return transport
