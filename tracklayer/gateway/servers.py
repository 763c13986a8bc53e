"""The model servers of one project: started, proved right, stopped."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tracklayer.errors import ServiceError
from tracklayer.gateway.releases import Release
from tracklayer.runtimes import Program, Supervisor
from tracklayer.serving import Golden
from tracklayer.sockets import accepts, grpc_beside

_READY_WITHIN = 60.0  # seconds


class Servers:
    """The servers of all versions of a project.

    :param project: its name.
    :param supervisor: keeps the servers running.
    :param env: variables of the servers, which say where the store is.
    :param secrets: names of the supervisor's secrets that opening the store takes.
    :param sockets: folder of the servers' sockets.
    :param logs: folder of the servers' logs.
    """

    def __init__(
        self,
        project: str,
        *,
        supervisor: Supervisor,
        env: Mapping[str, str],
        secrets: Sequence[str],
        sockets: Path,
        logs: Path,
    ) -> None:
        self._project = project
        self._supervisor = supervisor
        self._env, self._secrets = env, secrets
        self._sockets = sockets
        self._logs = logs

    def start(self, release: Release) -> list[Path]:
        """Start the servers of a version, if they do not run, and prove each of them right.

        :returns: their sockets.
        :raises ServiceError: one did not become ready, or answered wrongly.
        """
        names = self._names(release)
        for name in names:
            self._supervisor.add(self._program(name, release))
        for name in names:
            self._await_ready(name)
        self.prove(release)
        return [self._socket(name) for name in names]

    def prove(self, release: Release, *, timeout: float = 30.0) -> None:
        """Ask each server of a version the golden request.

        :raises ServiceError: one did not answer, or answered wrongly.
        """
        for name in self._names(release):
            with self._client(name, timeout) as client:
                ask(partial(_post, client, self._infer), release.golden)

    def up(self, release: Release) -> list[Path] | None:
        """The sockets of a version all of whose servers accept connections; else None."""
        sockets = [self._socket(name) for name in self._names(release)]
        return sockets if all(map(accepts, sockets)) else None

    def stop(self, version: int) -> None:
        """Stop the servers of a version; they answer what they have first."""
        for name in self._running().get(version, []):
            self._supervisor.remove(name)

    def versions(self) -> list[int]:
        """The versions of which the supervisor has a server, in order."""
        return sorted(self._running())

    def _running(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for status in self._supervisor.status():
            project, _, rest = status.name.partition(".v")
            version = rest.partition(".")[0]
            if project == self._project and version.isdecimal():
                found.setdefault(int(version), []).append(status.name)
        return found

    def _names(self, release: Release) -> list[str]:
        return [f"{self._project}.v{release.version}.{index}" for index in range(release.replicas)]

    def _program(self, name: str, release: Release) -> Program:
        return Program(
            name=name,
            argv=[
                *(sys.executable, "-P", "-m", "tracklayer.serving"),
                *("--manifest", release.manifest),
                *("--name", self._project, "--version", str(release.version)),
                *("--socket", str(self._socket(name))),
                *("--grpc", f"unix:{grpc_beside(self._socket(name))}"),
                *(part for word in release.allow for part in ("--allow", word)),
            ],
            logfile=self._logs / f"{name}.log",
            env=self._env,
            secrets=self._secrets,
            stopwaitsecs=30,
            priority=500,
        )

    def _socket(self, name: str) -> Path:
        # Its path may have 107 bytes, so that the name of the service cannot be part of it.
        return self._sockets / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.sock"

    @property
    def _infer(self) -> str:
        return f"/v2/models/{self._project}/infer"

    def _client(self, name: str, timeout: float) -> httpx.Client:
        # To load certificates, of which there are none here, takes longer than to ask.
        transport = httpx.HTTPTransport(uds=str(self._socket(name)), verify=False)
        return httpx.Client(transport=transport, base_url="http://service", timeout=timeout)

    def _await_ready(self, name: str) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        with self._client(name, 30.0) as client:
            while time.monotonic() < deadline:
                try:
                    ready = client.get("/v2/health/ready").status_code == 200
                    # gRPC comes last, and is as much a part of the address.
                    if ready and accepts(grpc_beside(self._socket(name))):
                        return
                except httpx.TransportError:
                    pass
                if self._ended(name):
                    break
                time.sleep(0.05)
        said = "\n".join(self._supervisor.log(name).splitlines()[-10:])
        raise ServiceError(f"the model server {name} did not become ready:\n{said}")

    def _ended(self, name: str) -> bool:
        states = {status.name: status.state for status in self._supervisor.status()}
        return states.get(name) in {"FATAL", "BACKOFF", "EXITED"}


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    return client.post(path, json=body)


class BusyError(ServiceError):
    """The server has more requests than it can take now; that says nothing about its answers."""


def ask(post: Callable[[dict[str, Any]], httpx.Response], golden: Golden) -> None:
    """Send the golden request and check the answer.

    :raises BusyError: the server takes no more requests now.
    :raises ServiceError: no answer, an error, or a wrong answer.
    """
    try:
        response = post(golden.request)
    except httpx.TransportError as error:
        raise ServiceError(f"no answer to the golden request: {error}") from error
    if response.status_code != 200:
        kind = BusyError if response.status_code == 503 else ServiceError
        raise kind(
            f"the golden request was answered with {response.status_code}: {response.text[:500]}"
        )
    golden.check(response.json())
