"""Connections of a real Airflow, found from processes that are not its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import PlatformError
from tracklayer.sources import Credential
from tracklayer_airflow.connections import find

if TYPE_CHECKING:
    from tests.conftest import Remote
    from tests.integration.airflow.conftest import Airflow as _Airflow


@pytest.fixture
def airflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Airflow of one's own, with a database in it."""
    home = tmp_path / "own-airflow"
    home.mkdir()
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
    return home


@pytest.mark.usefixtures("database")
def test_in_the_database(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is printed, and nothing else is taken for the answer."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
    extra = {"private_key": "-----BEGIN\nx\n-----END\n", "region_name": "é"}
    kept = Connection("lab_db", "generic", login="ann", password="p@ss/w%rd:é", extra=extra)
    with create_session() as session:
        session.add(kept)
    capfd.readouterr()
    assert find("lab_db") == Credential("ann", "p@ss/w%rd:é", extra)
    assert find("nobody") is None
    assert "p@ss" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("airflow_home")
def test_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAB", "generic://ann:p%40ss@host?region_name=x")
    assert find("lab") == Credential("ann", "p@ss", {"region_name": "x"})


def test_the_platforms_own_airflow(
    own_home: Path, airflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without AIRFLOW_HOME it is the one in the home of the platform."""
    monkeypatch.delenv("AIRFLOW_HOME")
    assert find("lab") is None
    assert not own_home.exists()  # no Airflow is begun for the question
    config = own_home / "airflow" / "airflow.cfg"
    config.parent.mkdir(parents=True)
    secrets = own_home / "secrets.json"
    secrets.write_text(json.dumps({"lab": {"conn_type": "generic", "password": "s3cret"}}))
    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    paths = json.dumps({"connections_file_path": str(secrets)})
    config.write_text(f"[secrets]\nbackend = {backend}\nbackend_kwargs = {paths}\n")
    assert find("lab") == Credential("", "s3cret", {})


def test_an_airflow_that_is_broken(airflow_home: Path) -> None:
    (airflow_home / "airflow.cfg").write_text("this is no configuration\n")
    with pytest.raises(PlatformError, match="cannot be asked for the connection lab"):
        find("lab")
    assert os.environ["AIRFLOW_HOME"] == str(airflow_home)


def test_a_task_asks_airflow(airflow: _Airflow, remote: Remote) -> None:
    """Whose key cannot be used has been found, and is not shown."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    secret = "n0t-a-private-key"
    with create_session() as session:
        session.add(Connection("lab_git", "git", extra=json.dumps({"private_key": secret})))
    source = "{d: {uri: 'git+ssh://git@127.0.0.1:1/r.git@main', connection: %s}}"
    spec = f"name: p\ntemplate: data@1\nsources: {source}\n"
    for connection, message in (
        ("lab_git", "the private key of the git connection cannot be used"),
        ("nobody", "names the Airflow connection nobody, which does not exist"),
    ):
        remote.push({"p/tracklayer.yaml": spec % connection})
        airflow.sync()
        run = airflow.trigger("p")
        assert run.step("fetch-d") == "failed"
        assert message in "\n".join(run.said("fetch-d", "error"))
        assert secret not in str(run.log("fetch-d"))
