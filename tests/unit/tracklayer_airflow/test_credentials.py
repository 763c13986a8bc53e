"""Which credential a source gets, from Airflow's own way of finding connections."""

from __future__ import annotations

import json

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Credential
from tracklayer_airflow.credentials import credential


@pytest.fixture(autouse=True)
def as_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own processes find connections without a child."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_the_connection_that_a_source_names(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"region_name": "eu-west-1", "aws_session_token": "tok en"}
    values = {"conn_type": "aws", "login": "AKID", "password": "s3cret/key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LAB_S3", json.dumps(values))
    assert credential("s3", "lab_s3") == Credential("AKID", "s3cret/key", extra)
    monkeypatch.setenv("AIRFLOW_CONN_LAB_HF", "generic://:hf_t%2Foken@")
    assert credential("huggingface", "lab_hf") == Credential("", "hf_t/oken", {})


def test_the_usual_connection_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TRACKLAYER_KAGGLE", "generic://ann:s3cret@")
    assert credential("kaggle", None) == Credential("ann", "s3cret", {})


def test_the_environment_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert credential("huggingface", None) is None
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    assert credential("huggingface", None) == Credential(password="hf_environment")
    monkeypatch.setenv("AIRFLOW_CONN_TRACKLAYER_HUGGINGFACE", "generic://:hf_connection@")
    assert credential("huggingface", None) == Credential("", "hf_connection", {})


def test_a_named_connection_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is taken for it."""
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    with pytest.raises(SourceError) as caught:
        credential("huggingface", "lab")
    assert "connection lab, which does not exist" in caught.value.message
    advice = "airflow connections add lab --conn-type generic --conn-password <token>"
    assert advice in str(caught.value.hint)


def test_a_credential_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAB", '{"password": "s3cret", "extra": {"token": "t0ken"}}')
    shown = repr(credential("git", "lab"))
    assert "s3cret" not in shown
    assert "t0ken" not in shown
