"""Credentials of the environment, and what no representation shows."""

from __future__ import annotations

import pytest

from tracklayer.sources import Credential, Remote
from tracklayer.sources.http import Place
from tracklayer.sources.protocol import from_environment

NAMES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "KAGGLE_API_TOKEN",
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
)


@pytest.mark.parametrize(
    ("kind", "variables", "found"),
    [
        ("huggingface", {}, None),
        ("huggingface", {"HF_TOKEN": "t"}, Credential(password="t")),
        ("huggingface", {"HUGGING_FACE_HUB_TOKEN": "t"}, Credential(password="t")),
        ("kaggle", {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k"}, Credential("u", "k")),
        ("kaggle", {"KAGGLE_USERNAME": "u"}, None),
        ("kaggle", {"KAGGLE_API_TOKEN": "t"}, Credential(password="t")),
        ("git", {"HF_TOKEN": "t", "KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k"}, None),
    ],
)
def test_the_environment(
    kind: str,
    variables: dict[str, str],
    found: Credential | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert from_environment(kind) == found


def test_representations_have_no_secrets() -> None:
    secret = {"Authorization": "hunter2"}
    url = "https://host/f?signature=hunter2"
    for thing in (
        Credential("somebody", "hunter2", secret),
        Remote("f", url, headers=secret),
        Remote("f", lambda: url, headers=secret),
        Place(url, url, secret),
    ):
        assert "hunter2" not in repr(thing)
        assert "hunter2" not in str(thing)
