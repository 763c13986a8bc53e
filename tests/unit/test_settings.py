"""What a person can set wrong is told by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import PlatformError
from tracklayer.settings import settings


def test_a_value_that_a_setting_cannot_have(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKLAYER_STORE_QUOTA", "plenty")
    monkeypatch.setenv("TRACKLAYER_MLFLOW_PORT", "70000")
    settings.cache_clear()
    with pytest.raises(PlatformError) as caught:
        settings()
    assert "the setting store_quota is 'plenty'" in caught.value.message
    assert "the setting mlflow_port is '70000'" in caught.value.message
    assert "TRACKLAYER_STORE_QUOTA" in str(caught.value.hint)
    assert str(own_home / "settings.json") in str(caught.value.hint)


def test_kept_settings_that_are_damaged(own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "settings.json").write_text("{")
    settings.cache_clear()
    with pytest.raises(PlatformError, match=r"settings\.json is damaged"):
        settings()
