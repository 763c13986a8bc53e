"""What this machine has and lacks for the platform."""

from __future__ import annotations

import errno
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tracklayer.errors import PlatformError
from tracklayer.settings import Settings, settings

_LEAST_SPACE = 2 * 1024**3  # bytes; an environment with PyTorch's CPU build takes half of it
_LEAST_MEMORY = 4 * 1024**3  # bytes; the platform takes less than 2 GiB of it


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked for.

    :param found: what is there.
    :param hint: how to get what is missing; None if nothing is.
    :param required: the platform does not start without it.
    """

    name: str
    ok: bool
    found: str
    hint: str | None
    required: bool


def doctor() -> list[Check]:
    """Everything that the platform needs or can use on this machine."""
    from tracklayer.platform.embedded import supervisor

    here = settings()
    running = here.home.exists() and supervisor().alive()
    return [*machine_checks(here), *([] if running else port_checks(here)), *_optional()]


def require(checks: Iterable[Check]) -> None:
    """Go on only if all of these hold.

    :raises PlatformError: names the first that does not.
    """
    for check in checks:
        if not check.ok:
            raise PlatformError(f"{check.name}: {check.found}.", hint=check.hint)


def machine_checks(here: Settings) -> Iterator[Check]:
    """The parts of the machine that the platform cannot do without, or hardly."""
    version = ".".join(map(str, sys.version_info[:3]))
    hint = "Use Python 3.11, 3.12 or 3.13."
    yield _check("Python", (3, 11) <= sys.version_info[:2] <= (3, 13), version, hint)
    git = _first_line(shutil.which("git"), "--version")
    hint = "Install git 2.31 or newer: `apt install git`, `dnf install git` or `brew install git`."
    number = re.search(r"(\d+)\.(\d+)", git)
    yield _check(
        "git", number is not None and (int(number[1]), int(number[2])) >= (2, 31), git, hint
    )
    if here.gateway_proxy == "haproxy":
        yield _haproxy()
    folder = here.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free in {here.home}, {_LEAST_SPACE / 2**30:.0f} GiB are needed"
    hint = "Free some, or set TRACKLAYER_HOME to a folder on another disk."
    yield _check("Disk", free >= _LEAST_SPACE, found, hint)
    memory = psutil.virtual_memory().available
    found = f"{memory / 2**30:.1f} GiB available"
    hint = "The platform takes up to 2 GiB, a training what its spec says."
    yield _check("Memory", memory >= _LEAST_MEMORY, found, hint, required=False)


def port_checks(here: Settings) -> Iterator[Check]:
    """The ports of the platform's servers, while it does not run."""
    ports = {
        "airflow_port": here.airflow_port,
        "mlflow_port": here.mlflow_port,
        "gateway_port": here.gateway_port,
        "gateway_grpc_port": here.grpc_port,
    }
    for name, port in ports.items():
        if port is None:  # not wanted
            continue
        problem = _cannot_listen(here.host, port)
        hint = f"End that, or set TRACKLAYER_{name.upper()} to a free port."
        yield _check(f"Port {port} of {here.host}", problem is None, problem or "free", hint)


def _haproxy() -> Check:
    from tracklayer.gateway.haproxy import program

    try:
        found = program()
    except PlatformError as error:
        return _check("HAProxy", False, error.message, error.hint or "")
    return _check("HAProxy", True, _first_line(found, "-v"), "")


def _optional() -> Iterator[Check]:
    for name, arguments, hint in (
        ("terraform", ("version",), "Not needed: the platform brings Terraform as a library."),
        ("docker", ("--version",), "Not needed: jobs run as processes."),
        ("nvidia-smi", ("-L",), "Needed only for jobs that ask for `gpus`."),
    ):
        path = shutil.which(name)
        found = _first_line(path, *arguments)
        yield _check(name, path is not None, found, hint, required=False)


def _check(name: str, ok: bool, found: str, hint: str, *, required: bool = True) -> Check:
    return Check(name, ok, found, None if ok else hint, required)


def _first_line(program: str | None, *arguments: str) -> str:
    if program is None:
        return "not found"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else str(Path(program))


def _cannot_listen(host: str, port: int) -> str | None:
    with socket.socket() as probe:
        # As the servers do: a connection that lingers of a server before is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"in use{_by_whom(port)}"
            return str(error.strerror)
    return None


def _by_whom(port: int) -> str:
    try:
        for found in psutil.net_connections("tcp"):
            if found.laddr and found.laddr.port == port and found.status == psutil.CONN_LISTEN:
                if found.pid is None:
                    return " by a process of another user"
                return f" by {psutil.Process(found.pid).name()} (process {found.pid})"
    except psutil.Error:
        pass  # who it is, is not for us to see
    return ""
