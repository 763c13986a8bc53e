from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tracklayer.errors import TrackingError
from tracklayer.tracking.ledger import Ledger

WRITER = """
import sys
from pathlib import Path
from tracklayer.tracking.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    ledger.append(sys.argv[2], "step", number, {number: 1}, actor="a", reason="x" * 300)
    print(number, flush=True)
"""
LIMITED = """
import resource, signal, sys
from pathlib import Path
from tracklayer.errors import TrackingError
from tracklayer.tracking.ledger import Ledger

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    Ledger(Path(sys.argv[1])).append("digits", "live", 3, {3: 1}, actor="ann")
except TrackingError as error:
    print(error)
"""


def writer(path: Path, project: str, count: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WRITER, str(path), project, str(count)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.jsonl"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    """Four entries of two projects."""
    ledger = Ledger(path)
    ledger.append("digits", "deploy", 2, {1: 1}, actor="ann", run="r1", commit="c", digest="d")
    ledger.append("digits", "step", 2, {1: 90, 2: 10}, actor="ann")
    ledger.append("spam", "live", 7, {7: 1}, actor="bob")
    ledger.append("digits", "abort", 2, {1: 1, 2: 0}, actor="ann", reason="3 of 20 failed")
    return ledger


def test_it_says_what_happened_and_is_its_owners_alone(ledger: Ledger, path: Path) -> None:
    found = ledger.read()
    assert found.problems == []
    first, step, abort = found.of("digits")
    assert (first.event, first.version, first.actor, first.run) == ("deploy", 2, "ann", "r1")
    assert (first.commit, first.digest) == ("c", "d")
    assert step.shares == {1: 90.0, 2: 10.0}
    assert (abort.shares, abort.reason) == ({1: 100.0}, "3 of 20 failed")
    assert [entry.number for entry in found.entries] == [1, 2, 3, 4]
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_who_answered_at_a_moment(ledger: Ledger) -> None:
    found = ledger.read()
    first, step, _ = found.of("digits")
    assert found.at("digits", first.time - timedelta(seconds=1)) is None
    assert found.at("digits", step.time) == step
    later = found.at("digits", step.time + timedelta(days=1))
    assert later
    assert later.shares == {1: 100.0}
    assert found.at("unknown", step.time) is None


def test_there_is_none_yet(path: Path) -> None:
    assert Ledger(path).read().entries == []
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [lines[0], lines[1].replace("90", "91"), *lines[2:]], ":2: this line was"),
        (lambda lines: [lines[0], *lines[2:]], ":2: entries before this one are missing"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], ":2: entries before this one"),
        (lambda lines: [lines[0], "{}", *lines[2:]], ":2: this line was damaged"),
        (lambda lines: [lines[0], "[\0", *lines[2:]], ":2: this line was damaged"),
        (lambda lines: lines[1:], ":1: entries before this one are missing"),
        (lambda lines: lines[:-1], "entries at the end are missing, up to 4"),
        (lambda lines: [], "entries at the end are missing, up to 4"),
    ],
)
def test_a_changed_ledger_is_found_out(ledger: Ledger, path: Path, spoil, said: str) -> None:
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in spoil(lines)))
    found = ledger.read()
    assert said in "\n".join(found.problems)
    # What happens afterwards is noted all the same, and the damage is still to be seen.
    ledger.append("digits", "live", 9, {9: 1}, actor="ann")
    after = ledger.read()
    assert after.entries[-1].version == 9
    assert after.entries[-1].number == 5
    assert after.problems


def test_a_line_of_a_rehashed_entry_is_found_out(ledger: Ledger, path: Path) -> None:
    other = Ledger(path.with_name("other.jsonl"))
    other.append("digits", "deploy", 3, {1: 1}, actor="mallory")
    forged = path.with_name("other.jsonl").read_text().splitlines()[0]
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in [forged, *lines[1:]]))
    assert ledger.read().problems == [f"{path}:2: entries before this one are missing"]


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_cut_line_is_mended(ledger: Ledger, path: Path, left: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:left])
    assert ledger.read().problems == [f"{path}:5: the last line is not whole"]
    ledger.append("digits", "live", 3, {3: 1}, actor="ann")
    found = ledger.read()
    assert found.problems == []
    assert [entry.number for entry in found.entries] == [1, 2, 3, 4, 5]


def test_killed_between_the_line_and_its_hash(ledger: Ledger, path: Path) -> None:
    head = path.with_name(f"{path.name}.head")
    before = head.read_text()
    ledger.append("digits", "live", 3, {3: 1}, actor="ann")
    head.write_text(before)
    assert ledger.read().problems == []
    ledger.append("digits", "live", 4, {4: 1}, actor="ann")
    assert ledger.read().problems == []
    assert len(ledger.read().entries) == 6


def test_several_processes_add_at_once(path: Path) -> None:
    writers = [writer(path, project, 40) for project in ("a", "b", "c")]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    found = Ledger(path).read()
    assert found.problems == []
    assert [len(found.of(project)) for project in "abc"] == [40, 40, 40]


def test_what_was_said_to_be_there_survives_a_kill(path: Path) -> None:
    said = 0
    for _ in range(3):
        with writer(path, "p", 10_000) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            said += 1 + len(process.stdout.read().split("\n")[:-1])
    Ledger(path).append("p", "live", 1, {1: 1}, actor="a")
    found = Ledger(path).read()
    assert found.problems == []
    assert len(found.entries) >= said + 1


def test_a_ledger_that_cannot_be_written(ledger: Ledger, path: Path) -> None:
    head = path.with_name(f"{path.name}.head")
    head.write_text("{")
    with pytest.raises(TrackingError, match=r"head is damaged"):
        ledger.append("digits", "live", 3, {3: 1}, actor="ann")
    head.unlink()
    path.rename(path.with_name("away"))
    path.mkdir()
    with pytest.raises(TrackingError, match=f"cannot use the ledger {path}: Is a directory"):
        ledger.append("digits", "live", 3, {3: 1}, actor="ann")


def test_a_full_disk_loses_nothing(ledger: Ledger, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(path.stat().st_size + 50)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in done.stdout, done.stderr
    ledger.append("digits", "live", 3, {3: 1}, actor="ann")
    found = ledger.read()
    assert (found.problems, len(found.entries)) == ([], 5)
    assert json.loads(path.read_text().splitlines()[-1])["version"] == 3
