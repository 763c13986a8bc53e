"""Our platform, in a temporary home on free ports."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.measure import NotMeasuredError, say
from bench.processes import clean_environment, free_ports, last_lines, started
from bench.rest import Airflow
from tracklayer.platform.airflow import credentials
from tracklayer.projects import Repository
from tracklayer.settings import Settings

_COMMAND = "from tracklayer.platform import {0}; {0}(lambda line: print(line, flush=True))"
_WITHIN = 300.0  # seconds for `up` or `down`


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that runs, seen by one who uses it."""

    settings: Settings
    airflow: Airflow

    @property
    def pid(self) -> int:
        """The process that all others of the platform descend from."""
        return int((self.settings.home / "supervisor" / "supervisord.pid").read_text())

    def save(self, folder: Path) -> None:
        """Push a project."""
        self.repository().save(folder, author="Benchmark <bench@localhost>")

    def repository(self) -> Repository:
        """Its projects, through a mirror of our own as any other machine would have."""
        home = self.settings.home
        return Repository(self.settings.repository_url, cache=home.parent / "mirror")


def settings_for(folder: Path, templates: Path | None = None) -> Settings:
    """Settings of a home in this folder, on ports that are free."""
    airflow, mlflow, gateway, grpc = free_ports(4)
    return Settings(
        home=folder / "home",
        airflow_port=airflow,
        mlflow_port=mlflow,
        gateway_port=gateway,
        gateway_grpc_port=grpc,
        templates=templates,
    )


@contextmanager
def platform(folder: Path, templates: Path | None = None) -> Iterator[Platform]:
    """The platform, up until the block ends, whatever way.

    :param folder: an empty one, for the home and the logs of this.
    :raises NotMeasuredError: it does not start.
    """
    settings = settings_for(folder, templates)
    say("  starting the platform")
    try:
        _call("up", settings, folder)
        user = credentials(settings)
        yield Platform(settings, Airflow(settings.airflow_url, user.user, user.password))
    finally:
        _down(settings, folder)


def environment(settings: Settings) -> dict[str, str]:
    """What makes any of our programs use these settings."""
    values = settings.model_dump(mode="json", exclude_none=True)
    named = {f"TRACKLAYER_{name.upper()}": str(value) for name, value in values.items()}
    return clean_environment(**named)


def _call(what: str, settings: Settings, folder: Path) -> None:
    log = folder / f"{what}.log"
    argv = [sys.executable, "-c", _COMMAND.format(what)]
    with started(argv, env=environment(settings), cwd=folder, log=log) as process:
        if code := process.wait(_WITHIN):
            raise NotMeasuredError(f"`{what}` exited with {code}: {last_lines(log)}")


def _down(settings: Settings, folder: Path) -> None:
    """Stop it, and wait until the supervisor is gone."""
    pid_file = settings.home / "supervisor" / "supervisord.pid"
    pid = int(pid_file.read_text()) if pid_file.exists() else None
    try:
        _call("down", settings, folder)
    finally:
        deadline = time.monotonic() + 10
        while pid and psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        shutil.rmtree(settings.sockets, ignore_errors=True)
