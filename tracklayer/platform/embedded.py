"""The embedded default: every process of the platform on one machine, under one supervisor."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import httpx
import psutil

from tracklayer.errors import PlatformError
from tracklayer.platform import airflow
from tracklayer.platform.machine import machine_checks, port_checks, require
from tracklayer.platform.variables import CONNECTIONS, of_store
from tracklayer.private import roots
from tracklayer.projects import Repository
from tracklayer.runtimes import ProcessRuntime, Program, Supervisor
from tracklayer.runtimes.launch import named
from tracklayer.settings import Settings, settings

OnStep = Callable[[str], None]

_HEALTHY_WITHIN = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the platform answers. ``grpc``: host and port of the gateway's gRPC, if it has one."""

    airflow: str
    mlflow: str
    gateway: str
    grpc: str | None


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process of the platform, or one model server. ``memory`` in bytes with its children."""

    name: str
    state: str
    pid: int | None
    uptime: float
    memory: int


def addresses() -> Addresses:
    """Where the platform of this home answers when it is up."""
    here = settings()
    return Addresses(here.airflow_url, here.mlflow_url, here.gateway_url, here.gateway_grpc)


def credentials() -> airflow.Credentials:
    """Who may use the platform of this home.

    :raises PlatformError: it was never started.
    """
    return airflow.credentials(settings())


def supervisor() -> Supervisor:
    """The supervisor of this home."""
    here = settings()
    patterns = [*of_store(here), CONNECTIONS]
    return Supervisor(
        here.home / "supervisor",
        here.sockets / "supervisor.sock",
        here.logs,
        secrets={name: value for name, value in os.environ.items() if named(name, patterns)},
    )


def up(on_step: OnStep) -> Addresses:
    """Start whatever does not run yet, and wait until all of it is healthy. Idempotent.

    Interrupted at any moment, the next call goes on.

    :param on_step: gets one line for each thing that is done.
    :raises PlatformError: it cannot start; nothing is left half started that was not running.
    """
    here = settings()
    with _alone(here):
        keeper = supervisor()
        require(check for check in machine_checks(here) if check.required)
        if not keeper.alive():
            # While it runs the ports are its own, and what a killed one has left still holds them.
            keeper.stop()
            require(port_checks(here))
        here.remember()
        on_step(f"Preparing {here.home}")
        Repository(here.repository_url, branch=here.branch, cache=here.mirror).create()
        airflow.prepare(here)
        on_step("Starting the supervisor")
        keeper.start()
        for program in _programs(here):
            on_step(f"Starting {program.name}")
            keeper.add(program)
        _wait_healthy(here, keeper, on_step)
    return addresses()


def down(on_step: OnStep) -> None:
    """End every process of the platform, the jobs and the model servers too. Idempotent."""
    here = settings()
    if not here.home.exists():
        return
    with _alone(here):
        on_step("Stopping the platform")
        supervisor().stop()
        for root in roots():
            for folder in ProcessRuntime.running(root):
                on_step(f"Ending the job in {folder}")
                ProcessRuntime.end(folder)
        shutil.rmtree(here.sockets, ignore_errors=True)


def status() -> list[ProcessStatus]:
    """Every process that the supervisor keeps; empty if the platform is down."""
    keeper = supervisor()
    if not settings().home.exists() or not keeper.alive():
        return []
    return [
        ProcessStatus(found.name, found.state, found.pid, found.uptime, _memory(found.pid))
        for found in keeper.status()
    ]


def _programs(here: Settings) -> list[Program]:
    from tracklayer.tracking.server import command

    env = airflow.environment(here)

    def program(
        name: str, argv: list[str], priority: int, more: dict[str, str], secrets: Sequence[str]
    ) -> Program:
        return Program(
            name=name,
            argv=argv,
            env=env | more,
            secrets=secrets,
            cwd=here.home,
            logfile=here.logs / f"{name}.log",
            priority=priority,
            stopwaitsecs=15,
        )

    def airflow_program(name: str, *arguments: str) -> Program:
        return program(name, [sys.executable, "-m", "airflow", name, *arguments], 200, {}, ["*"])

    mlflow_argv, mlflow_env = command(here.mlflow_home, here.host, here.mlflow_port)
    gateway_argv = [
        *(sys.executable, "-P", "-m", "tracklayer.gateway"),
        *("--host", here.host, "--port", str(here.gateway_port)),
        *("--admin", str(here.sockets / "gateway.sock")),
        *("--routes", str(here.routes)),
        *("--state", str(here.gateway_home), "--access", here.gateway_access),
        *("--proxy", here.gateway_proxy),
    ]
    if here.grpc_port:
        gateway_argv += ["--grpc-port", str(here.grpc_port)]
    if here.gateway_tls_cert:
        gateway_argv += ["--tls-cert", str(here.gateway_tls_cert.expanduser().absolute())]
    if here.gateway_tls_key:
        gateway_argv += ["--tls-key", str(here.gateway_tls_key.expanduser().absolute())]
    return [
        program("mlflow", mlflow_argv, 100, mlflow_env, of_store(here)),
        program("gateway", gateway_argv, 100, {}, []),
        airflow_program("api-server"),
        airflow_program("dag-processor"),
        airflow_program("scheduler", "--skip-serve-logs"),
    ]


def _wait_healthy(here: Settings, keeper: Supervisor, on_step: OnStep) -> None:
    waiting: dict[str, Callable[[], bool]] = {
        "gateway": lambda: _answers(f"{here.gateway_url}/-/health"),
        "mlflow": lambda: _answers(f"{here.mlflow_url}/health"),
        "airflow": lambda: _airflow_healthy(here),
    }
    if port := here.grpc_port:
        waiting["gRPC"] = lambda: _listens(here.host, port)
    deadline = time.monotonic() + _HEALTHY_WITHIN
    while waiting:
        for name in [name for name, healthy in waiting.items() if healthy()]:
            on_step(f"{name} is healthy")
            del waiting[name]
        dead = [found for found in keeper.status() if found.state in {"FATAL", "EXITED"}]
        if dead or time.monotonic() > deadline:
            names = ", ".join(found.name for found in dead) or ", ".join(waiting)
            name = dead[0].name if dead else "scheduler"
            last = "\n".join(keeper.log(name).splitlines()[-15:])
            raise PlatformError(
                f"The platform did not become healthy: {names}\n{last}",
                hint=f"The logs are in {here.logs}. `tracklayer down` stops what runs.",
            )
        time.sleep(0.1)


@cache
def _client() -> httpx.Client:
    # These addresses are plain HTTP: to load certificates would take longer than to ask.
    return httpx.Client(trust_env=False, verify=False)  # noqa: S501


def _answers(url: str, timeout: float = 2) -> bool:
    try:
        return _client().get(url, timeout=timeout).status_code == 200
    except httpx.HTTPError:
        return False


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _airflow_healthy(here: Settings) -> bool:
    try:
        health = _client().get(f"{here.airflow_url}/api/v2/monitor/health", timeout=2).json()
    except (httpx.HTTPError, ValueError):
        return False
    parts = ("metadatabase", "scheduler", "dag_processor")
    if not all(health.get(part, {}).get("status") == "healthy" for part in parts):
        return False
    # The API that tasks use is built at its first request, for seconds: not by the first task.
    return _answers(f"{here.airflow_url}/execution/health", timeout=30)


@contextmanager
def _alone(here: Settings) -> Iterator[None]:
    """One ``up`` or ``down`` at a time, on a home that can be written."""
    try:
        here.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        here.home.chmod(0o700)
        with tempfile.TemporaryFile(dir=here.home):
            pass
    except OSError as error:
        raise PlatformError(
            f"The home {here.home} cannot be written: {error.strerror}.",
            hint="Set TRACKLAYER_HOME to a folder of your own.",
        ) from None
    with (here.home / ".up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PlatformError(
                "Another `tracklayer up` or `down` works on this home.",
                hint="Wait until it has ended.",
            ) from None
        yield


def _memory(pid: int | None) -> int:
    if pid is None:
        return 0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)
    except psutil.Error:
        return 0
