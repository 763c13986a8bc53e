from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tracklayer.cli.main import main
from tracklayer.tracking.ledger import Ledger


@pytest.fixture
def ledger(own_home: Path) -> Ledger:
    ledger = Ledger(own_home / "ledger.jsonl")
    ledger.append("digits", "live", 1, {1: 100}, actor="ann", run="manual__1", commit="c" * 40)
    ledger.append("digits", "step", 2, {1: 90, 2: 10}, actor="bob")
    ledger.append("digits", "abort", 2, {1: 100}, actor="bob", reason="3 of 20 requests failed")
    return ledger


def test_history_for_people(ledger: Ledger, capsys: Any) -> None:
    assert main(["history", "digits"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split()[2:] for line in out.splitlines()]
    assert lines[1] == ["live", "1", "1", "ann", "manual__1", "cccccccccccc"]
    assert lines[2] == ["step", "2", "1:", "90%,", "2:", "10%", "bob"]
    assert lines[3][:4] == ["abort", "2", "1", "bob"]
    assert "3 of 20 requests failed" in out
    assert err == ""


def test_who_answered(ledger: Ledger, capsys: Any) -> None:
    _, step, _ = ledger.read().entries
    assert main(["history", "digits", "--at", step.time.isoformat()]) == 0
    out = capsys.readouterr().out
    assert "versions answered: 1: 90%, 2: 10%" in out
    assert "step of version 2 by bob" in out
    assert main(["history", "digits", "--at", step.time.isoformat(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shares"], found["entry"]["version"]) == ({"1": 90.0, "2": 10.0}, 2)
    later = (step.time + timedelta(days=1)).astimezone().replace(tzinfo=None)
    assert main(["history", "digits", "--at", later.isoformat()]) == 0
    assert "version 1 answered" in capsys.readouterr().out
    assert main(["history", "digits", "--at", "2001-01-01"]) == 0
    assert "no version answered" in capsys.readouterr().out


def test_what_is_wrong_with_a_history(ledger: Ledger, own_home: Path, capsys: Any) -> None:
    assert main(["history", "digits", "--at", "yesterday"]) == 64
    assert "'yesterday' is no time. Write it as" in capsys.readouterr().err
    for beyond in ("0001-01-01T00:00+12:00", "9999-12-31T23:59-12:00"):
        assert main(["history", "digits", "--at", beyond]) == 64
        assert "is no time. Write it as" in capsys.readouterr().err
    assert main(["history", "nobody"]) == 11
    assert "No version of nobody was ever deployed here." in capsys.readouterr().err
    path = own_home / "ledger.jsonl"
    path.write_text(path.read_text().replace("bob", "eve", 1))
    assert main(["history", "digits"]) == 0
    warning = f"Warning: the ledger is damaged: {path}:2: this line was damaged or changed"
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize("command", ["rollback", "promote", "pause", "resume"])
def test_no_gateway(own_home: Path, command: str, capsys: Any) -> None:
    assert main([command, "digits"]) == 11
    err = capsys.readouterr().err
    assert "no rollout of digits is under way" in err or "the gateway is not there" in err
