from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import PlatformError
from tracklayer.gateway.haproxy import installed
from tracklayer.gateway.haproxy.installed import program

LUA = "echo Built with Lua version : Lua 5.3.6"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (None, "there is no HAProxy on this machine"),
        (f"echo HAProxy version 2.4.22; {LUA}", "is 2.4, and 2.6 is needed"),
        ("exit 1", "is of an unknown version, and 2.6 is needed"),
        ("echo HAProxy version 3.0.1", "was built without Lua"),
    ],
)
def test_one_that_cannot_do_it_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, problem: str
) -> None:
    make(tmp_path, monkeypatch, script)
    with pytest.raises(PlatformError, match=problem) as caught:
        program()
    assert "TRACKLAYER_GATEWAY_PROXY=embedded" in str(caught.value.hint)


def test_one_that_can_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, monkeypatch, f"echo HAProxy version 2.10.0-1; {LUA}")
    assert program() == str(tmp_path / "haproxy")


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    if script is not None:
        file = folder / "haproxy"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o700)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(installed, "_FOLDERS", ())
