from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracklayer.errors import PackagesError, StoreError
from tracklayer.packages.uv import Uv


def fake(tmp_path: Path, script: str) -> Uv:
    """The driver with another program in uv's place: what it does with any program's words."""
    program = tmp_path / "uv"
    program.write_text(f"#!{sys.executable} -S\nimport os, sys\n{script}")
    program.chmod(0o755)
    driver = Uv(tmp_path, lambda line: None)
    driver._program = str(program)
    return driver


def test_a_full_disk_is_not_the_requirements_fault(tmp_path: Path) -> None:
    said = "error: failed to write: No space left on device (os error 28)"
    driver = fake(tmp_path, f"sys.exit({said!r})")
    with pytest.raises(StoreError, match="no space is left"):
        driver.create(tmp_path / "e", Path(sys.executable), keep_open=0)


def test_the_explanation_is_what_uv_says_at_last_without_secrets(tmp_path: Path) -> None:
    said = "Resolving\n  \u00d7 No solution at https://me:s3cret@host/simple\n  ╰─▶ Because"
    driver = fake(tmp_path, f"sys.exit({said!r})")
    with pytest.raises(PackagesError) as raised:
        driver.create(tmp_path / "e", Path(sys.executable), keep_open=0)
    assert "https://***@host/simple" in str(raised.value)
    assert "Because" in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert "Resolving" not in str(raised.value)


def test_uv_does_not_see_the_platforms_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "planted")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    driver = fake(tmp_path, "print(dict(os.environ)); print('x' * 1_000_000)")
    seen = driver.compile(["six"], Path(sys.executable), None)
    assert "planted" not in seen
    assert f"'UV_CACHE_DIR': '{tmp_path}'" in seen
    assert len(seen) > 1_000_000
