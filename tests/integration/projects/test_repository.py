from __future__ import annotations

import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tracklayer.errors import ProjectError, SpecError
from tracklayer.projects import Repository
from tracklayer.projects.files import entry_from


def text(name: str, *lines: str) -> str:
    base = [f"name: {name}", "template: train-and-deploy@1", "train: {script: train.py}"]
    return "\n".join([*base, *lines]) + "\n"


def project(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tracklayer.yaml").write_text(text(name, *lines))
    (folder / "train.py").write_text(f"print('{name}')\n")
    return folder


def git(*arguments: str | Path, cwd: Path) -> str:
    """A person's own git, as somebody else."""
    person = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A"}
    environment = {**os.environ, **person, "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who never told git anything."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return tmp_path / "state" / "projects.git"


@pytest.fixture
def repository(tmp_path: Path, bare: Path) -> Repository:
    repository = Repository(str(bare), cache=tmp_path / "cache")
    repository.create()
    return repository


def test_create_is_for_its_owner_and_can_be_repeated(repository: Repository, bare: Path) -> None:
    assert (bare.stat().st_mode & 0o777) == 0o700
    assert (bare / "HEAD").read_text() == "ref: refs/heads/main\n"
    repository.create()
    assert repository.projects() == {}


def test_create_goes_on_where_it_was_killed(tmp_path: Path, bare: Path) -> None:
    (bare / "refs").mkdir(parents=True)
    (bare / "HEAD").write_text("ref: refs/heads/main\n")
    repository = Repository(str(bare), cache=tmp_path / "cache")
    repository.create()
    assert repository.save(project(tmp_path / "a", "a")).changed


def test_create_does_not_touch_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear")
    with pytest.raises(ProjectError, match="neither empty nor a git repository"):
        Repository(str(tmp_path / "mine"), cache=tmp_path / "cache").create()


def test_save_and_read(repository: Repository, tmp_path: Path, bare: Path) -> None:
    folder = project(tmp_path / "work", "a")
    (folder / "run.sh").write_bytes(b"#!/bin/sh\r\n\x00")
    (folder / "run.sh").chmod(0o755)
    (folder / "ünï cödé").symlink_to("run.sh")
    (folder / ".gitattributes").write_text("* text=auto eol=crlf\n")
    saved = repository.save(folder, author="Ada <ada@example.org>", message="First\n\nwords")
    assert saved.project == "a"
    assert saved.changed
    assert repository.projects() == {"a": text("a")}
    assert git("rev-parse", "main", cwd=bare) == saved.commit
    listed = git("-c", "core.quotePath=no", "ls-tree", "-r", "main", cwd=bare).splitlines()
    assert [(line.split()[0], line.partition("\t")[2]) for line in listed] == [
        ("100644", "a/.gitattributes"),
        ("100755", "a/run.sh"),
        ("100644", "a/tracklayer.yaml"),
        ("100644", "a/train.py"),
        ("120000", "a/ünï cödé"),
    ]
    exact = subprocess.check_output(["git", "cat-file", "blob", "main:a/run.sh"], cwd=bare)
    assert exact == b"#!/bin/sh\r\n\x00"  # no filter touched it
    git("fsck", "--strict", cwd=bare)


def test_the_same_again_is_no_commit(repository: Repository, tmp_path: Path) -> None:
    folder = project(tmp_path / "work", "a")
    first = repository.save(folder)
    again = repository.save(folder)
    assert (again.commit, again.changed) == (first.commit, False)
    assert len(repository.history("a")) == 1


def test_a_save_replaces_the_whole_folder(repository: Repository, tmp_path: Path) -> None:
    folder = project(tmp_path / "work", "a")
    (folder / "old.txt").write_text("x")
    first = repository.save(folder)
    (folder / "old.txt").unlink()
    (folder / "tracklayer.yaml").write_text(text("a", "description: new"))
    second = repository.save(folder)
    names = git("ls-tree", "-r", "--name-only", second.commit, cwd=tmp_path / "cache").split()
    assert names == ["a/tracklayer.yaml", "a/train.py"]
    assert repository.projects(first.commit) == {"a": text("a")}
    assert repository.projects() == {"a": text("a", "description: new")}


def test_history(repository: Repository, tmp_path: Path) -> None:
    folder = project(tmp_path / "a", "a")
    one = repository.save(folder, author="Ada <ada@example.org>", message="One")
    repository.save(project(tmp_path / "b", "b"))
    (folder / "train.py").write_text("print(2)\n")
    two = repository.save(folder, author="Bob")
    newest, oldest = repository.history("a")
    assert (newest.id, oldest.id) == (two.commit, one.commit)
    assert (oldest.author, oldest.message) == ("Ada <ada@example.org>", "One")
    assert newest.author.startswith("Bob <")
    assert newest.message == "Save a"
    assert abs(datetime.now(UTC) - newest.time) < timedelta(minutes=1)
    with pytest.raises(ProjectError, match=r"no project c\.\n  Known: a, b"):
        repository.history("c")


@pytest.mark.parametrize("author", ["a\nb", "a <b> <c>", "<x@y>", "a <b\ncommitter c>"])
def test_an_author_is_no_way_into_the_commit(
    repository: Repository, tmp_path: Path, author: str
) -> None:
    with pytest.raises(ProjectError, match="is no author"):
        repository.save(project(tmp_path / "w", "a"), author=author)
    assert repository.projects() == {}


def test_remove(repository: Repository, tmp_path: Path) -> None:
    repository.save(project(tmp_path / "a", "a"))
    repository.save(project(tmp_path / "b", "b"))
    removed = repository.remove("a")
    assert list(repository.projects()) == ["b"]
    assert repository.history("a")[0].id == removed
    assert repository.history("a")[0].message == "Remove a"
    with pytest.raises(ProjectError, match="no project a"):
        repository.remove("a")
    repository.remove("b")
    assert repository.projects() == {}


def test_a_broken_spec_is_refused_and_changes_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    folder = project(tmp_path / "a", "a")
    first = repository.save(folder)
    (folder / "tracklayer.yaml").write_text(text("a", "tranie: {}"))
    with pytest.raises(SpecError) as error:
        repository.save(folder)
    assert error.value.problems[0].file == str(folder / "tracklayer.yaml")
    assert error.value.problems[0].line == 4
    (folder / "tracklayer.yaml").unlink()
    with pytest.raises(ProjectError, match=r"There is no file .*tracklayer\.yaml"):
        repository.save(folder)
    assert repository.history("a")[0].id == first.commit


def test_a_cycle_is_refused(repository: Repository, tmp_path: Path) -> None:
    a = project(tmp_path / "a", "a", "schedule: {after: [b/model]}")
    with pytest.raises(SpecError, match="there is no project b to follow"):
        repository.save(a)
    repository.save(project(tmp_path / "b", "b"))
    repository.save(a)
    with pytest.raises(SpecError, match="wait for each other: a → b → a"):
        repository.save(project(tmp_path / "b", "b", "schedule: {after: [a/model]}"))
    assert repository.projects()["b"] == text("b")


def test_save_files(repository: Repository, bare: Path) -> None:
    program = entry_from("tool.sh", b"#!/bin/sh\n", executable=True)
    files = [program, entry_from("tracklayer.yaml", text("a").encode())]
    saved = repository.save_files("a", files, message="From the page")
    assert repository.projects() == {"a": text("a")}
    assert repository.history("a")[0].message == "From the page"
    listed = git("ls-tree", saved.commit, "a/", cwd=bare)
    assert [line.split()[0] for line in listed.splitlines()] == ["100755", "100644"]
    assert repository.save_files("a", files).commit == saved.commit
    with pytest.raises(SpecError, match="`name` is a, but the project is b"):
        repository.save_files("b", files)
    with pytest.raises(ProjectError, match="is not a path"):
        repository.save_files("a", [*files, entry_from("../b/tracklayer.yaml", b"")])
    assert repository.projects() == {"a": text("a")}


def test_what_others_push_is_seen(repository: Repository, tmp_path: Path, bare: Path) -> None:
    git("clone", "--quiet", bare, tmp_path / "clone", cwd=tmp_path)
    git("checkout", "--quiet", "-b", "main", cwd=tmp_path / "clone")
    project(tmp_path / "clone/a", "a")
    (tmp_path / "clone/README.md").write_text("hello")
    (tmp_path / "clone/docs").mkdir()
    (tmp_path / "clone/docs/x").write_text("no project")
    (tmp_path / "clone/bad").mkdir()
    (tmp_path / "clone/bad/tracklayer.yaml").write_bytes(b"name: \xff\n")
    git("add", ".", cwd=tmp_path / "clone")
    git("commit", "--quiet", "-m", "by hand", cwd=tmp_path / "clone")
    git("push", "--quiet", "origin", "main", cwd=tmp_path / "clone")
    assert repository.projects() == {"a": text("a"), "bad": "name: \udcff\n"}
    assert repository.last_valid("bad") is None
    assert repository.history("a")[0].author == "A <a@b>"
    repository.save(project(tmp_path / "b", "b"))
    assert "README.md" in git("ls-tree", "--name-only", "main", cwd=bare).split()
    with pytest.raises(ProjectError, match="no project docs"):
        repository.remove("docs")


def test_last_valid(repository: Repository, tmp_path: Path, bare: Path) -> None:
    folder = project(tmp_path / "a", "a")
    repository.save(folder)
    (folder / "train.py").write_text("print(2)\n")
    good = repository.save(folder)
    git("clone", "--quiet", bare, tmp_path / "clone", cwd=tmp_path)
    for attempt in ("name: [", "name: other\n"):
        (tmp_path / "clone/a/tracklayer.yaml").write_text(attempt)
        git("commit", "--quiet", "-am", "break it", cwd=tmp_path / "clone")
    git("push", "--quiet", "origin", "main", cwd=tmp_path / "clone")
    assert repository.last_valid("a") == (good.commit, text("a"))
    assert repository.last_valid("a", good.commit) == (good.commit, text("a"))
    assert repository.last_valid("nobody") is None
    # A broken neighbour does not hinder.
    repository.save(project(tmp_path / "b", "b"))
    repository.save(project(tmp_path / "c", "c", "schedule: {after: [b/model]}"))


def test_two_mirrors_race_and_nothing_is_lost(tmp_path: Path, bare: Path) -> None:
    Repository(str(bare), cache=tmp_path / "c0").create()

    def save(number: int) -> None:
        # Two threads a mirror, two mirrors: races inside of one and between them.
        repository = Repository(str(bare), cache=tmp_path / f"c{number % 2}")
        repository.save(project(tmp_path / f"p{number}", f"p{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(8)))
    repository = Repository(str(bare), cache=tmp_path / "c9")
    assert sorted(repository.projects()) == [f"p{number}" for number in range(8)]
    assert git("rev-list", "--count", "main", cwd=bare) == "8"


def test_a_mirror_that_was_killed_goes_on(repository: Repository, tmp_path: Path) -> None:
    repository.save(project(tmp_path / "a", "a"))
    for ref in ("seen", "next"):
        (tmp_path / "cache/refs/tracklayer" / f"{ref}.lock").touch()
    (tmp_path / "a/train.py").write_text("print(2)\n")
    assert repository.save(tmp_path / "a").changed


@pytest.mark.parametrize("form", ["file://{}", "{}"])
def test_addresses_of_a_local_repository(tmp_path: Path, bare: Path, form: str) -> None:
    repository = Repository(form.format(bare), branch="live/1", cache=tmp_path / "cache")
    repository.create()
    repository.save(project(tmp_path / "a", "a"))
    assert git("symbolic-ref", "HEAD", cwd=bare) == "refs/heads/live/1"
    assert list(repository.projects()) == ["a"]


@pytest.mark.parametrize("form", ["someone@host:{}", "ssh://someone@host{}"])
def test_a_repository_over_ssh(
    repository: Repository, tmp_path: Path, bare: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ssh transport, with a program in ssh's place that stays on this machine."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nwhile [ "$1" != someone@host ]; do shift; done\nexec sh -c "$2"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    remote = Repository(form.format(bare), cache=tmp_path / "other")
    remote.create()
    remote.save(project(tmp_path / "a", "a"))
    assert repository.projects() == remote.projects() == {"a": text("a")}


def test_no_such_remote(tmp_path: Path) -> None:
    repository = Repository(str(tmp_path / "nothing.git"), cache=tmp_path / "cache")
    with pytest.raises(ProjectError, match=r"nothing\.git: git fetch failed") as error:
        repository.save(project(tmp_path / "a", "a"))
    assert "address" in (error.value.hint or "")


def test_a_remote_that_cannot_be_reached_keeps_its_password(tmp_path: Path) -> None:
    repository = Repository("http://ada:secret@127.0.0.1:1/r.git", cache=tmp_path / "cache")
    with pytest.raises(ProjectError, match=r"127\.0\.0\.1") as error:
        repository.projects()
    assert "secret" not in str(error.value)
    assert "secret" not in "".join(
        path.read_text() for path in (tmp_path / "cache").iterdir() if path.is_file()
    )


@pytest.mark.parametrize("url", ["ext::sh -c 'touch pwned'", "--upload-pack=touch pwned"])
def test_an_address_runs_nothing(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError):
        Repository(url, cache=tmp_path / "cache").projects()
    assert not (tmp_path / "pwned").exists()


def test_a_remote_that_refuses_says_why(repository: Repository, tmp_path: Path, bare: Path) -> None:
    hook = bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho only on weekdays >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ProjectError, match="only on weekdays"):
        repository.save(project(tmp_path / "a", "a"))
    assert repository.projects() == {}


def test_hooks_of_the_user_do_not_run(repository: Repository, tmp_path: Path) -> None:
    hooks = tmp_path / "home/hooks"
    hooks.mkdir()
    (hooks / "pre-push").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    (hooks / "pre-push").chmod(0o755)
    (tmp_path / "home/.gitconfig").write_text(f"[core]\n\thooksPath = {hooks}\n")
    assert repository.save(project(tmp_path / "a", "a")).changed
    assert not (tmp_path / "ran").exists()


def test_a_save_is_quick(repository: Repository, tmp_path: Path) -> None:
    folder = project(tmp_path / "a", "a")
    repository.save(folder)
    times = []
    for number in range(5):
        (folder / "train.py").write_text(f"print({number})\n")
        begin = time.perf_counter()
        repository.save(folder)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.2, times


def test_one_repository_from_many_threads(repository: Repository, tmp_path: Path) -> None:
    repository.save(project(tmp_path / "a", "a"))
    seen: list[dict[str, str]] = []
    threads = [threading.Thread(target=lambda: seen.append(repository.projects())) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [{"a": text("a")}] * 4
