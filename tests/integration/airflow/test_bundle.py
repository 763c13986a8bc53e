from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.dag_processing.bundles.base import BundleVersion

if TYPE_CHECKING:
    from tests.conftest import Remote
    from tracklayer_airflow.bundle import ProjectBundle as _Bundle

Open = Callable[..., "_Bundle"]


def spec(name: str, *more: str) -> str:
    lines = (f"name: {name}", "template: train-and-deploy@1", "train: {script: t.py}", *more)
    return "".join(f"{line}\n" for line in lines)


def stubs(bundle: _Bundle) -> list[str]:
    return sorted(path.name for path in bundle.path.iterdir())


def version(bundle: _Bundle) -> str | None:
    found = bundle.get_current_version()
    assert found is None or isinstance(found, BundleVersion)
    return found.version if found else None


def test_a_repository_may_appear_later(remote: Remote, open_bundle: Open) -> None:
    bundle = open_bundle()
    bundle.initialize()
    assert bundle.is_initialized
    assert (stubs(bundle), version(bundle)) == ([], None)

    remote.repository.create()
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == ([], None)

    remote.push({"a/tracklayer.yaml": spec("a")}, branch="other")
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == ([], None)

    commit = remote.push({"b/tracklayer.yaml": spec("b")})
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == (["project-a.py", "project-b.py"], commit)


def test_an_empty_repository_has_no_projects(remote: Remote, open_bundle: Open) -> None:
    remote.repository.create()
    bundle = open_bundle()
    bundle.initialize()
    assert (stubs(bundle), version(bundle)) == ([], None)


def test_what_is_pushed_is_taken_over(remote: Remote, open_bundle: Open) -> None:
    first = remote.push({"a/tracklayer.yaml": spec("a")})
    bundle = open_bundle()
    bundle.initialize()
    assert (stubs(bundle), version(bundle)) == (["project-a.py"], first)
    second = remote.push({"b/tracklayer.yaml": spec("b"), "a": None})
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == (["project-b.py"], second)
    other = open_bundle()  # another process that has no memory of it
    other.initialize()
    assert (stubs(other), version(other)) == (["project-b.py"], second)


def test_packed_branches_and_a_forced_push_are_seen(remote: Remote, open_bundle: Open) -> None:
    first = remote.push({"a/tracklayer.yaml": spec("a")})
    bundle = open_bundle()
    bundle.initialize()
    remote.push({"b/tracklayer.yaml": spec("b")})

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(remote.url), *arguments], check=True)

    git("pack-refs", "--all")
    bundle.refresh()
    assert stubs(bundle) == ["project-a.py", "project-b.py"]
    git("update-ref", "refs/heads/main", first)
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == (["project-a.py"], first)


def test_looking_at_an_unchanged_repository_starts_no_process(
    remote: Remote, open_bundle: Open, git_calls: Callable[[], list[str]]
) -> None:
    remote.push({"a/tracklayer.yaml": spec("a")})
    bundle = open_bundle()
    bundle.initialize()
    assert git_calls()
    for _ in range(3):
        bundle.refresh()
    assert git_calls() == []
    remote.push({"b/tracklayer.yaml": spec("b")})
    git_calls()
    bundle.refresh()
    assert git_calls()


@pytest.mark.parametrize("form", ["file://{}", "{}/."])
def test_any_remote_will_do(remote: Remote, open_bundle: Open, form: str) -> None:
    first = remote.push({"a/tracklayer.yaml": spec("a")})
    bundle = open_bundle(url=form.format(remote.url))
    bundle.initialize()
    assert (stubs(bundle), version(bundle)) == (["project-a.py"], first)
    second = remote.push({"b/tracklayer.yaml": spec("b")})
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == (["project-a.py", "project-b.py"], second)


def test_a_person_s_own_checkout_will_do_as_the_remote(
    remote: Remote, open_bundle: Open, tmp_path: Path
) -> None:
    remote.push({"a/tracklayer.yaml": spec("a")})
    bundle = open_bundle(url=tmp_path / "remote" / "work")
    bundle.initialize()
    assert stubs(bundle) == ["project-a.py"]
    second = remote.push({"b/tracklayer.yaml": spec("b")})  # committed there first
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == (["project-a.py", "project-b.py"], second)


def test_a_remote_that_is_away_hurts_nothing(
    remote: Remote, open_bundle: Open, tmp_path: Path
) -> None:
    first = remote.push({"a/tracklayer.yaml": spec("a")})
    bundle = open_bundle()
    bundle.initialize()
    away = remote.url.rename(tmp_path / "away")
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == (["project-a.py"], first)
    # A task of a run that was started before, and one whose worker has not seen the version yet.
    pinned = open_bundle(version=first)
    pinned.initialize()
    assert stubs(pinned) == ["project-a.py"]
    assert (Path(bundle.bare_repo_path) / "HEAD").exists(), "steps read their files there"
    away.rename(remote.url)
    second = remote.push({"b/tracklayer.yaml": spec("b")})
    bundle.refresh()
    assert version(bundle) == second


@pytest.mark.parametrize("damage", ["garbage", "empty", "no objects"])
def test_a_damaged_clone_is_made_again(remote: Remote, open_bundle: Open, damage: str) -> None:
    remote.push({"a/tracklayer.yaml": spec("a")})
    bundle = open_bundle()
    bundle.initialize()
    bare = Path(bundle.bare_repo_path)
    if damage == "no objects":
        shutil.rmtree(bare / "objects")
    else:
        shutil.rmtree(bare)
        bare.mkdir()
        if damage == "garbage":
            (bare / "HEAD").write_text("garbage")
    second = remote.push({"b/tracklayer.yaml": spec("b")})
    bundle.refresh()
    assert (stubs(bundle), version(bundle)) == (["project-a.py", "project-b.py"], second)


def test_a_damaged_repository_never_raises(remote: Remote, open_bundle: Open) -> None:
    remote.push({"a/tracklayer.yaml": spec("a")})
    shutil.rmtree(remote.url / "objects")
    bundle = open_bundle()
    bundle.initialize()
    assert version(bundle) is None


def test_a_pinned_version_is_as_it_was(remote: Remote, open_bundle: Open) -> None:
    first = remote.push({"a/tracklayer.yaml": spec("a"), "b/tracklayer.yaml": spec("b")})
    remote.push({"a/tracklayer.yaml": spec("a", "description: new"), "b": None})
    tracked = open_bundle()
    tracked.initialize()
    pinned = open_bundle(version=first)
    pinned.initialize()
    assert pinned.is_initialized
    assert (stubs(pinned), version(pinned)) == (["project-a.py", "project-b.py"], first)
    assert pinned.path.name == first
    assert "description: new" not in (pinned.path / "project-a.py").read_text()
    assert "description: new" in (tracked.path / "project-a.py").read_text()
    assert pinned.path != tracked.path


def test_a_pinned_version_that_only_the_remote_has(remote: Remote, open_bundle: Open) -> None:
    remote.push({"a/tracklayer.yaml": spec("a")})
    open_bundle().initialize()
    second = remote.push({"b/tracklayer.yaml": spec("b")})
    pinned = open_bundle(version=second)
    pinned.initialize()
    assert (stubs(pinned), version(pinned)) == (["project-a.py", "project-b.py"], second)


def test_a_pinned_version_on_a_machine_that_has_nothing(remote: Remote, open_bundle: Open) -> None:
    commit = remote.push({"a/tracklayer.yaml": spec("a")})
    pinned = open_bundle(version=commit)
    pinned.initialize()
    assert stubs(pinned) == ["project-a.py"]


def test_a_pinned_version_that_is_there_asks_nobody(
    remote: Remote, open_bundle: Open, git_calls: Callable[[], list[str]]
) -> None:
    commit = remote.push({"a/tracklayer.yaml": spec("a")})
    open_bundle(version=commit).initialize()
    git_calls()
    open_bundle(version=commit).initialize()
    assert git_calls() == []


def test_a_version_that_nobody_has_fails_the_task(remote: Remote, open_bundle: Open) -> None:
    remote.push({"a/tracklayer.yaml": spec("a")})
    pinned = open_bundle(version="f" * 40)
    with pytest.raises(Exception, match="ffff not found"):
        pinned.initialize()
    assert not pinned.path.exists()


def test_what_a_killed_process_left_is_no_version(remote: Remote, open_bundle: Open) -> None:
    commit = remote.push({"a/tracklayer.yaml": spec("a")})
    pinned = open_bundle(version=commit)
    half = pinned.path.with_name(f"{commit}.partial")
    half.mkdir(parents=True)
    (half / "half.py").write_text("half of it")
    pinned.initialize()
    assert stubs(pinned) == ["project-a.py"]
    assert not half.exists()


def test_two_processes_may_want_the_same_version_at_once(remote: Remote, open_bundle: Open) -> None:
    commit = remote.push({"a/tracklayer.yaml": spec("a")})
    processes: Any = multiprocessing.get_context("fork")
    started = [processes.Event() for _ in range(3)]

    def initialise(event: Any) -> None:
        event.set()
        open_bundle(version=commit).initialize()

    workers = [processes.Process(target=initialise, args=(event,)) for event in started]
    with open_bundle().lock():  # all of them have found no folder when the first may make it
        for worker in workers:
            worker.start()
        assert all(event.wait(30) for event in started)
        time.sleep(0.5)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert stubs(open_bundle(version=commit)) == ["project-a.py"]
