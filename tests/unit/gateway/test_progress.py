from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError
from tracklayer.gateway.progress import Journal, Progress

PROGRESS = Progress(version=3, old=2, step=1, share=50, actor="ann")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "rollouts", "digits")


def test_what_is_written_is_read_by_the_owner(journal: Journal, tmp_path: Path) -> None:
    assert journal.read() is None
    with journal.changing() as found:
        assert found is None
        journal.write(PROGRESS)
    with journal.changing() as found:
        assert found == PROGRESS == journal.read()
        journal.write(None)
    assert journal.read() is None
    for path in (tmp_path / "rollouts").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "rollouts").stat().st_mode) == 0o700


def test_a_damaged_file_is_told(journal: Journal, tmp_path: Path) -> None:
    with journal.changing():
        journal.write(PROGRESS)
    (tmp_path / "rollouts" / "digits.json").write_text('{"version": "x"}')
    with pytest.raises(PlatformError, match=r"rollouts/digits.json is damaged"):
        journal.read()


def _deploy(folder: Path, ready: object, going: object) -> None:
    with Journal(folder, "digits").deploying(lambda: None):
        ready.set()
        going.wait(20)


def test_one_deployer_at_a_time_and_a_dead_one_lets_go(journal: Journal, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, going = context.Event(), context.Event()
    arguments = (tmp_path / "rollouts", ready, going)
    other = context.Process(target=_deploy, args=arguments)
    other.start()
    assert ready.wait(20)
    with journal.unless_deployed() as alone:
        assert not alone
    with Journal(tmp_path / "rollouts", "spam").unless_deployed() as alone:
        assert alone  # another project's

    waited = []

    def on_wait() -> None:
        waited.append(True)
        other.kill()

    with journal.deploying(on_wait), journal.unless_deployed() as alone:
        assert not alone
    assert waited == [True]
    other.join()
    with journal.deploying(lambda: waited.append(False)):
        pass
    assert waited == [True]
