from __future__ import annotations

from tracklayer.environment import passed_on


def test_only_what_is_listed_is_passed_on() -> None:
    environment = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "https_proxy": "http://proxy:3128",
        "SSL_CERT_FILE": "/ca.pem",
        "AIRFLOW__CORE__FERNET_KEY": "secret",
        "AIRFLOW_CONN_X": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HF_TOKEN": "secret",
        "PYTHONPATH": "/else",
        "TRACKLAYER_SUPERVISOR": "/s",
    }
    assert set(passed_on(environment)) == {"PATH", "LC_ALL", "https_proxy", "SSL_CERT_FILE"}
