from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError
from tracklayer.runtimes import Program
from tracklayer.runtimes.program import said

PROGRAM = Program(name="web", argv=["a", "b c"], env={"TOKEN": "s3cret"}, logfile=Path("/logs/w"))


def test_secrets_are_in_the_definition_alone() -> None:
    assert json.loads(PROGRAM.definition())["env"] == {"TOKEN": "s3cret"}
    assert "s3cret" not in PROGRAM.configuration(Path("/config"))


def test_supervisord_sees_every_change() -> None:
    first = PROGRAM.configuration(Path("/config"))
    for changed in (
        replace(PROGRAM, argv=["x"]),
        replace(PROGRAM, env={}),
        replace(PROGRAM, cwd=Path("/")),
        replace(PROGRAM, priority=1),
    ):
        assert changed.configuration(Path("/config")) != first


@pytest.mark.parametrize("name", ["", "a:b", "../x", "a b", "A", "x" * 200, "a@b"])
def test_names(name: str) -> None:
    with pytest.raises(PlatformError, match="name of a service"):
        replace(PROGRAM, name=name)


def test_what_the_format_can_carry() -> None:
    assert said("/a b/100%/#x") == "/a b/100%%/#x"
    for path in ("/a ;b", "/a #b", "/a\nb", '/a"b', "/a\\b", "/a "):
        with pytest.raises(PlatformError, match="cannot work with the path"):
            said(path)
