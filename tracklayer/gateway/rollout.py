"""How a new version of a project's model takes over: started, proved right, switched to, kept.

The old version goes on serving until the new one has answered the golden request rightly, and its
servers stay up until the new one was seen to answer at the stable address. Every step can be done
again: a rollout that died leaves one whole version serving, and the next one goes on.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tracklayer.errors import ServiceError
from tracklayer.gateway.client import GatewayClient
from tracklayer.runtimes import Program, Supervisor
from tracklayer.serving import Golden

_READY_WITHIN = 60.0  # seconds


class Rollout:
    """The servers of one project.

    :param project: its name.
    :param supervisor: keeps the servers running.
    :param gateway: where the stable address is.
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
        gateway: GatewayClient,
        env: Mapping[str, str],
        secrets: Sequence[str],
        sockets: Path,
        logs: Path,
    ) -> None:
        self._project = project
        self._supervisor = supervisor
        self._gateway = gateway
        self._env, self._secrets = env, secrets
        self._sockets = sockets
        self._logs = logs

    def start(self, version: int, replicas: int, golden: Golden, *, manifest: str) -> list[Path]:
        """Start the servers of a version and prove each of them right.

        :param manifest: digest of the model's files in the store.
        :returns: their sockets.
        :raises ServiceError: one did not become ready, or answered wrongly; all are stopped again,
            unless the version is live already.
        """
        names = [f"{self._project}.v{version}.{index}" for index in range(replicas)]
        live = self.live()
        try:
            for name in names:
                self._supervisor.add(self._program(name, version, manifest))
            for name in names:
                self._prove(name, golden)
        except ServiceError:
            if live is None or live[0] != version:  # what answers users goes on doing so
                for name in names:
                    self._supervisor.remove(name)
            raise
        return [self._socket(name) for name in names]

    def switch(self, version: int, sockets: list[Path]) -> None:
        """Send every new request to a version and wait until the old one has answered the rest.

        :raises ServiceError: the gateway does not answer.
        """
        self._gateway.switch(self._project, version, sockets)

    def live(self) -> tuple[int, list[Path]] | None:
        """The version that the gateway sends requests to, with its sockets."""
        route = self._gateway.routes().get(self._project)
        return (int(route.version), [Path(path) for path in route.backends]) if route else None

    def keep_only(self, version: int) -> None:
        """Stop the servers of all other versions."""
        for status in self._supervisor.status():
            project, _, rest = status.name.partition(".v")
            if project == self._project and rest.partition(".")[0] != str(version):
                self._supervisor.remove(status.name)

    def _program(self, name: str, version: int, manifest: str) -> Program:
        return Program(
            name=name,
            argv=[
                *(sys.executable, "-P", "-m", "tracklayer.serving"),
                *("--manifest", manifest),
                *("--name", self._project, "--version", str(version)),
                *("--socket", str(self._socket(name))),
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

    def _prove(self, name: str, golden: Golden) -> None:
        transport = httpx.HTTPTransport(uds=str(self._socket(name)))
        with httpx.Client(transport=transport, base_url="http://service", timeout=30) as client:
            self._await_ready(name, client)
            ask(lambda body: client.post(self._infer, json=body), golden)

    @property
    def _infer(self) -> str:
        return f"/v2/models/{self._project}/infer"

    def _await_ready(self, name: str, client: httpx.Client) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while time.monotonic() < deadline:
            try:
                if client.get("/v2/health/ready").status_code == 200:
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


def ask(post: Callable[[dict[str, Any]], httpx.Response], golden: Golden) -> None:
    """Send the golden request and check the answer.

    :raises ServiceError: no answer, an error, or a wrong answer.
    """
    try:
        response = post(golden.request)
    except httpx.TransportError as error:
        raise ServiceError(f"no answer to the golden request: {error}") from error
    if response.status_code != 200:
        raise ServiceError(
            f"the golden request was answered with {response.status_code}: {response.text[:500]}"
        )
    golden.check(response.json())
