"""Airflow as the embedded default: its configuration and its processes."""

from __future__ import annotations

import configparser
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tracklayer.environment import passed_on
from tracklayer.errors import PlatformError
from tracklayer.files import write_text
from tracklayer.settings import Settings

USER = "admin"
# Where packages, providers, hubs and keys are found is the user's own setting; jobs do not get it.
_FOUND_BY = ("TF_CLI_CONFIG_FILE", "SSH_AUTH_SOCK", "HF_ENDPOINT", "KAGGLE_API_ENDPOINT")


def configuration(settings: Settings, keys: dict[str, str]) -> str:
    """The text of ``airflow.cfg``.

    :param keys: the secrets of this home, by name: ``jwt``, ``fernet``.
    """
    home = settings.airflow_home
    bundle = {
        "name": "projects",
        "classpath": "tracklayer_airflow.bundle.ProjectBundle",
        "kwargs": {
            "repo_url": settings.repository_url,
            "tracking_ref": settings.branch,
            "refresh_interval": 1,
        },
    }
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": home / "dags",
            "plugins_folder": home / "plugins",
            "load_examples": False,
            "executor": "tracklayer_airflow.executor.PromptLocalExecutor",
            "parallelism": settings.parallelism,
            "fernet_key": keys["fernet"],
            "internal_api_secret_key": keys["jwt"],
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": home / "passwords.json",
            "execution_api_server_url": f"{settings.airflow_url}/execution/",
            "dags_are_paused_at_creation": False,
            "lazy_load_plugins": True,
            # A project pushed twice within this time would stay as it was after the first push.
            "min_serialized_dag_update_interval": 0,
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home}/airflow.db"},
        "api": {
            "host": settings.host,
            "port": settings.airflow_port,
            "base_url": settings.airflow_url,
            "workers": 1,
            "secret_key": keys["jwt"],
            "instance_name": "Tracklayer",
            "expose_config": False,
        },
        "api_auth": {"jwt_secret": keys["jwt"]},
        "scheduler": {
            # The executor waits in its place and is woken by a change, see its module.
            "scheduler_idle_sleep_time": 0.01,
            "enable_health_check": False,
            "orphaned_tasks_check_interval": 20,
            "scheduler_health_check_threshold": 15,
            "task_instance_heartbeat_timeout": 60,
        },
        # Airflow can miss that a task has ended until its next heartbeat, and keeps the slot.
        "workers": {"min_heartbeat_interval": 1},
        "dag_processor": {
            "dag_bundle_config_list": json.dumps([bundle]),
            "dag_bundle_storage_path": home / "bundles",
            "refresh_interval": 1,
            "bundle_refresh_check_interval": 1,
            # A stub changes only by a new commit, which is seen at once whatever this says.
            "min_file_process_interval": 3600,
            "parsing_processes": os.cpu_count() or 2,
        },
        "logging": {
            "base_log_folder": home / "logs",
            # It says each second that it looks for a new commit. A signal in the middle of that
            # line finds the log's lock held, and to say goodbye waits for it for ever.
            "namespace_levels": "airflow.dag_processing.manager=WARNING",
        },
        "usage_data_collection": {"enabled": False},
    }
    parser = configparser.RawConfigParser()
    for name, values in sections.items():
        # Airflow interpolates its file: a percent sign is written twice.
        parser[name] = {key: str(value).replace("%", "%%") for key, value in values.items()}
    text = StringIO()
    parser.write(text)
    return text.getvalue()


def environment(settings: Settings) -> dict[str, str]:
    """What every process of Airflow has in its environment; no secret among it."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "UV_")) or name in _FOUND_BY
    }
    # What is on this machine, a job's tracking server too, is reached without a proxy.
    direct = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), settings.host, "localhost"]
    no_proxy = ",".join(filter(None, direct))
    return passed | {
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "AIRFLOW_HOME": str(settings.airflow_home),
        "AIRFLOW_CONFIG": str(settings.airflow_home / "airflow.cfg"),
        # Without it each parse logs that the git provider's default connection is missing.
        "AIRFLOW_CONN_GIT_DEFAULT": '{"conn_type": "git"}',
        "TRACKLAYER_HOME": str(settings.home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }


def prepare(settings: Settings) -> None:
    """Write Airflow's configuration and bring its database up to date. Idempotent.

    :raises PlatformError: the database cannot be migrated.
    """
    home = settings.airflow_home
    for folder in (home, home / "dags", home / "plugins", home / "logs"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = _keys(home / "keys.json")
    write_text(home / "airflow.cfg", configuration(settings, keys))
    if not (home / "passwords.json").exists():
        write_text(home / "passwords.json", json.dumps({USER: secrets.token_urlsafe(16)}))
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=passed_on() | environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        log = settings.logs / "airflow-db-migrate.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
        raise PlatformError(
            f"Airflow's database in {home} cannot be brought up to date.",
            hint=f"What it said is in {log}.",
        )


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may use Airflow's page and API on the embedded default."""

    user: str
    password: str
    file: Path

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, file={self.file!r})"


def credentials(settings: Settings) -> Credentials:
    """The user of this home.

    :raises PlatformError: the platform was never started.
    """
    file = settings.airflow_home / "passwords.json"
    try:
        return Credentials(USER, json.loads(file.read_text())[USER], file)
    except FileNotFoundError:
        raise PlatformError(
            f"There is no platform in {settings.home}.", hint="Start it with `tracklayer up`."
        ) from None


def _keys(file: Path) -> dict[str, str]:
    from cryptography.fernet import Fernet

    if not file.exists():
        keys = {"jwt": secrets.token_urlsafe(48), "fernet": Fernet.generate_key().decode()}
        write_text(file, json.dumps(keys))
    found: dict[str, str] = json.loads(file.read_text())
    return found
