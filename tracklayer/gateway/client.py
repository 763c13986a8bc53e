"""The gateway, seen from the programs that deploy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from tracklayer.errors import ServiceError, first_problem
from tracklayer.gateway.routes import PROJECT, TABLE, Route
from tracklayer.gateway.stats import STATS, VersionStats

if TYPE_CHECKING:
    import httpx

_MARGIN = 30.0
"""Seconds that a call may take beside the draining."""


class Switched(BaseModel):
    """What became of a switch. ``in_flight`` counts the requests that the old servers had not
    answered at the time-out; 0 when ``drained``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    drained: bool
    in_flight: int
    previous: Route | None


class GatewayClient:
    """Changes the routes of the gateway whose administration socket is ``admin``."""

    def __init__(self, admin: Path) -> None:
        self._admin = admin

    def route(self, project: str, route: Route, *, drain: float = 30.0) -> Switched:
        """Give the project's requests to the servers of ``route``, by its weights.

        The change is atomic and outlives the gateway. Returns when the servers that left the
        route have answered what they had, or after ``drain`` seconds.

        Calling it again with the same route is harmless, and waits for what is still in flight.

        :raises ServiceError: the gateway is not there, or refuses (the route is then as before),
            or did not answer in time.
        """
        _check(project)
        answer = self._call("PUT", f"/-/routes/{project}", drain, route.model_dump_json())
        return Switched.model_validate_json(answer)

    def switch(
        self, project: str, version: int, backends: Sequence[Path], *, drain: float = 30.0
    ) -> Switched:
        """:meth:`route` of everything to one version, which becomes the champion."""
        try:
            route = Route.of(version, backends)
        except ValidationError as error:
            raise ServiceError(f"no route for {project!r}: {first_problem(error)}") from error
        return self.route(project, route, drain=drain)

    def remove(self, project: str, *, drain: float = 30.0) -> Switched:
        """Take the project off the gateway; nothing happens when it is not there.

        :raises ServiceError: as :meth:`switch`.
        """
        _check(project)
        return Switched.model_validate_json(self._call("DELETE", f"/-/routes/{project}", drain))

    def routes(self) -> dict[str, Route]:
        """The live routes by project.

        :raises ServiceError: the gateway is not there.
        """
        return TABLE.validate_json(self._call("GET", "/-/routes", 0.0))

    def stats(self, project: str) -> dict[int, VersionStats]:
        """What became of the project's requests since the gateway started, by version.

        A version that was never asked is not in it; one that left the route still is.

        :raises ServiceError: the gateway is not there.
        """
        _check(project)
        return STATS.validate_json(self._call("GET", f"/-/stats/{project}", 0.0))

    def http(self, *, timeout: float = 30.0) -> httpx.Client:
        """A client for the paths of the public address, by way of the administration socket: the
        platform itself asks without a key, whatever a project's access is."""
        import httpx

        return httpx.Client(
            # A socket of this machine: to load certificates for it would take longer than to ask.
            transport=httpx.HTTPTransport(uds=str(self._admin), verify=False),
            timeout=httpx.Timeout(timeout, connect=5.0),
            base_url="http://gateway",
        )

    def _call(self, method: str, path: str, drain: float, body: str | None = None) -> bytes:
        import httpx

        try:
            # A switch waits for one of the same project that is under way, which drains as long.
            with self.http(timeout=_MARGIN + 2 * drain) as client:
                response = client.request(method, path, params={"drain": drain}, content=body)
        except httpx.ConnectError as error:
            raise ServiceError(
                f"the gateway is not there: nothing listens on {self._admin}",
                hint="Start the platform: tracklayer up",
            ) from error
        except httpx.HTTPError as error:
            raise ServiceError(
                f"the gateway at {self._admin} did not answer {method} {path}: {error}"
            ) from error
        if response.status_code != 200:
            raise ServiceError(f"the gateway refused: {response.json()['error']}")
        return response.content


def _check(project: str) -> None:
    try:
        PROJECT.validate_python(project)
    except ValidationError as error:
        raise ServiceError(f"no project can be called {project!r}") from error
