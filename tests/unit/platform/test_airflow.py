from __future__ import annotations

import configparser
import json
import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tracklayer.errors import PlatformError
from tracklayer.platform.airflow import Credentials, configuration, credentials, environment
from tracklayer.settings import Settings

KEYS = {"jwt": "the-jwt-secret", "fernet": "the-fernet-key"}


def sections(settings: Settings) -> configparser.ConfigParser:
    """The file as Airflow reads it, with interpolation."""
    parser = configparser.ConfigParser()
    parser.read_string(configuration(settings, KEYS))
    return parser


@pytest.mark.parametrize("name", ["plain", "with space", "100%", "%(here)s", "ünïcode", "a#b;c"])
def test_any_home_will_do(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    found = sections(Settings(home=home))
    assert found["core"]["dags_folder"] == str(home / "airflow" / "dags")
    database = make_url(found["database"]["sql_alchemy_conn"])
    assert database.database == str(home / "airflow" / "airflow.db")
    (bundle,) = json.loads(found["dag_processor"]["dag_bundle_config_list"])
    assert bundle["kwargs"]["repo_url"] == str(home / "projects.git")


def test_the_settings_reach_airflow(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        host="127.0.0.2",
        airflow_port=1234,
        repository="https://git.example.org/projects.git",
        branch="live",
        parallelism=7,
    )
    found = sections(settings)
    assert (found["api"]["host"], found["api"]["port"]) == ("127.0.0.2", "1234")
    assert found["core"]["execution_api_server_url"] == "http://127.0.0.2:1234/execution/"
    assert found["core"]["parallelism"] == "7"
    (bundle,) = json.loads(found["dag_processor"]["dag_bundle_config_list"])
    assert bundle["kwargs"]["repo_url"] == "https://git.example.org/projects.git"
    assert bundle["kwargs"]["tracking_ref"] == "live"


def test_what_a_user_pushed_lies_nowhere_that_airflow_imports_from(tmp_path: Path) -> None:
    found = sections(Settings(home=tmp_path))
    for name in ("dags_folder", "plugins_folder"):
        folder = Path(found["core"][name])
        assert folder.is_relative_to(tmp_path / "airflow")
    assert found["core"]["load_examples"] == "False"


def test_nothing_is_told_to_strangers(tmp_path: Path) -> None:
    found = sections(Settings(home=tmp_path))
    assert found["api"]["expose_config"] == "False"
    assert found["usage_data_collection"]["enabled"] == "False"


def test_a_project_pushed_twice_in_a_row_is_taken_over_twice(tmp_path: Path) -> None:
    """Stock Airflow does not look at a change that comes within 30 s of the last one, and our
    stubs are parsed once a change."""
    found = sections(Settings(home=tmp_path))
    assert found["core"]["min_serialized_dag_update_interval"] == "0"


def test_the_environment_has_no_secret_and_nothing_of_another_airflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://planted")
    monkeypatch.setenv("AIRFLOW_HOME", "/another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    found = environment(Settings(home=tmp_path))
    assert "planted" not in str(found)
    assert found["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert found["TRACKLAYER_HOME"] == str(tmp_path)
    assert found["PIP_FIND_LINKS"] == "/wheels"
    assert {name for name in found if name.startswith("AIRFLOW")} == {
        "AIRFLOW_HOME",
        "AIRFLOW_CONFIG",
        "AIRFLOW_CONN_GIT_DEFAULT",
    }


def test_the_platforms_programs_are_found_first(tmp_path: Path) -> None:
    import sys

    first = environment(Settings(home=tmp_path))["PATH"].split(os.pathsep)[0]
    assert first == str(Path(sys.executable).parent)


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    shown = Credentials("admin", "the-password", tmp_path)
    assert "the-password" not in f"{shown!r} {shown}"


def test_a_platform_that_was_never_started_has_no_users(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="There is no platform in") as caught:
        credentials(Settings(home=tmp_path))
    assert "tracklayer up" in str(caught.value.hint)


def test_the_keys_of_a_home_are_made_once_for_its_owner(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    from tracklayer.platform.airflow import _keys

    file = tmp_path / "keys.json"
    first = _keys(file)
    assert _keys(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(first["jwt"]) >= 64
    Fernet(first["fernet"])
    assert _keys(tmp_path / "other.json") != first
