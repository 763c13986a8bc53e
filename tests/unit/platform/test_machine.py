from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError
from tracklayer.platform import doctor, machine
from tracklayer.platform.machine import Check, machine_checks, port_checks, require
from tracklayer.settings import Settings


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def check(checks: Iterator[Check], name: str) -> Check:
    return next(found for found in checks if found.name == name)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


_PORTS = ("airflow_port", "mlflow_port", "gateway_port", "gateway_grpc_port")


@pytest.mark.parametrize("name", _PORTS)
def test_a_port_in_use_names_it_its_holder_and_the_variable(
    tmp_path: Path, taken: int, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    ports = dict.fromkeys(_PORTS, free) | {name: taken}
    here = Settings.model_validate({"home": tmp_path, **ports})
    with pytest.raises(PlatformError) as caught:
        require(port_checks(here))
    assert caught.value.message.startswith(f"Port {taken} of 127.0.0.1: in use by ")
    assert f"(process {os.getpid()})" in caught.value.message
    assert f"TRACKLAYER_{name.upper()}" in str(caught.value.hint)


def test_a_server_that_has_just_ended_is_no_obstacle(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        connection, _ = server.accept()
        connection.close()  # the server's side goes first, and lingers in TIME_WAIT
        client.recv(1)
        client.close()
    here = Settings(home=tmp_path, airflow_port=port)
    assert next(port_checks(here)).ok


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    found = next(port_checks(Settings(home=tmp_path, host="203.0.113.7")))
    assert not found.ok
    assert "assign requested address" in found.found


def test_a_server_on_every_address_holds_the_port_too(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        found = next(port_checks(Settings(home=tmp_path, airflow_port=server.getsockname()[1])))
    assert not found.ok
    assert f"process {os.getpid()}" in found.found


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (None, "not found"),
        ("echo git version 2.20.1", "git version 2.20.1"),
        ("echo nonsense; exit 1", "nonsense"),
        ("exit 127", "git"),
    ],
)
def test_git_is_needed(
    tmp_path: Path, here: Settings, monkeypatch: pytest.MonkeyPatch, script: str | None, found: str
) -> None:
    if script is not None:
        program(tmp_path, "git", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match=r"^git: ") as caught:
        require(machine_checks(here))
    assert found in caught.value.message
    assert "apt install git" in str(caught.value.hint)


def test_space_is_looked_for_where_the_home_will_be(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(machine_checks(here), "Disk").ok
    monkeypatch.setattr(machine, "_LEAST_SPACE", 1 << 60)
    with pytest.raises(
        PlatformError, match=r"^Disk: .* GiB free in .*home, .* are needed"
    ) as caught:
        require(machine_checks(here))
    assert "TRACKLAYER_HOME" in str(caught.value.hint)
    assert not here.home.exists(), "who only looks makes nothing"


def test_little_memory_is_told_but_stops_nobody(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_LEAST_MEMORY", 1 << 60)
    found = check(machine_checks(here), "Memory")
    assert (found.ok, found.required) == (False, False)
    require(found for found in machine_checks(here) if found.required)


@pytest.mark.usefixtures("own_home")
def test_the_doctor_looks_at_everything_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taken: int
) -> None:
    program(tmp_path, "git", "echo git version 2.39.5")
    program(tmp_path, "docker", "echo Docker version 20.10; echo more")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("TRACKLAYER_MLFLOW_PORT", str(taken))
    found = {check.name: check for check in doctor()}
    assert found["docker"].found == "Docker version 20.10"
    assert found["git"].hint is None
    assert not found[f"Port {taken} of 127.0.0.1"].ok
    assert {"Python", "Disk", "Memory", "terraform", "nvidia-smi"} <= set(found)
    for check in found.values():
        assert check.found
        assert check.ok == (check.hint is None), check
    required = {check.name for check in found.values() if check.required}
    assert {"docker", "terraform", "nvidia-smi", "Memory"}.isdisjoint(required)
