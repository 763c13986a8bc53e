"""A user pushes anything; Airflow imports none of it, and one broken project hurts no other."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Remote
    from tests.integration.airflow.conftest import Airflow as _Airflow
    from tracklayer_airflow.bundle import ProjectBundle as _Bundle


def spec(name: str, *more: str) -> str:
    return "".join(f"{line}\n" for line in (f"name: {name}", "template: chain@1", *more))


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Parsing puts the folder of a bundle on the import path for good."""
    path = list(sys.path)
    yield
    sys.path[:] = path


def test_nothing_that_a_user_pushed_is_ever_imported(
    airflow: _Airflow,
    remote: Remote,
    open_bundle: Callable[..., _Bundle],
    tmp_path: Path,
    storage: Path,
) -> None:
    marker = tmp_path / "marker"
    evil = f'# airflow dag\nopen({str(marker)!r}, "a").write(__file__)\n'
    names = [
        *("evil", "__init__", "conftest", "airflow_dag", "setup", "sitecustomize", "usercustomize"),
        *("airflow_local_settings", "dag", "noop__error", "tracklayer", "plugins/plugin"),
    ]
    files = {f"{folder}{name}.py": evil for name in names for folder in ("", "mine/", "mine/dags/")}
    files |= {
        f"{name}.pth": f"import runpy; runpy.run_path({marker!r})\n" for name in ("a", "mine/b")
    }
    files |= {"mine/tracklayer.yaml": spec("mine"), "broken/tracklayer.yaml": "name: broken\n"}
    files |= {"broken/evil.py": evil, ".airflowignore": "mine\n", "mine/.airflowignore": ".*\n"}
    files["mine/tracklayer.py"] = evil
    commit = remote.push(files)
    remote.link("mine.py", "mine/evil.py")
    commit = remote.link("stubs", "mine")

    errors = airflow.sync()
    assert [Path(path).name for path in errors] == ["project-broken__error.py"]
    run = airflow.trigger("mine")
    assert run.version == commit
    assert run.step("one") == "success"
    assert not marker.exists(), marker.read_text()

    # Nothing of it lies where Airflow looks for Python, and the rest is in git's own form.
    tracked, pinned = open_bundle(), open_bundle(version=commit)
    assert sorted(path.name for path in tracked.path.iterdir()) == [
        "project-broken__error.py",
        "project-mine.py",
    ]
    assert sorted(path.name for path in pinned.path.iterdir()) == [
        "project-broken__error.py",
        "project-mine.py",
    ]
    for path in (*tracked.path.iterdir(), *pinned.path.iterdir()):
        assert not path.is_symlink()
    written = {path.name for path in storage.rglob("*.py")}
    assert written == {"project-broken__error.py", "project-mine.py"}
    found = importlib.util.find_spec("evil")
    assert found is None


STRANGE: dict[str, str | bytes] = {
    "with space": "x: 1",
    'a"""; open("marker", "w"); """': "x: 1",
    "back\\slash": "x: 1",
    "ünïcode-😀": "x: 1",
    os.fsdecode(b"not-\xff-unicode"): "x: 1",
    "x" * 255: "x: 1",
    "line\nbreak": "x: 1",
    "no-yaml": "{",
    "no-text": b"\xff\xfe\x00",
    "jinja": 'name: "{{ x }}"\n',
    "huge": "#" * 5_000_000,
    "bomb": "a: &a [x, x]\n"
    + "".join(f"{c}: &{c} [*{b}, *{b}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)),
    "twice": spec("good"),
    "one": spec("one", "schedule: {after: [two/model]}"),
    "two": spec("two", "schedule: {after: [one/model]}"),
}


def test_each_broken_project_is_red_and_the_others_run(
    airflow: _Airflow, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = {"good/tracklayer.yaml": spec("good")}
    remote.push({**good, **{f"{name}/tracklayer.yaml": text for name, text in STRANGE.items()}})
    errors = airflow.sync()
    assert len(errors) == len(STRANGE)
    for error in errors.values():
        last = error.strip().splitlines()[-1]
        assert "/tracklayer.yaml:" in last, error
        assert "SpecError" in error, error
    assert airflow.trigger("good").step("one") == "success"
    assert not (tmp_path / "marker").exists()
    assert import_errors() == len(STRANGE)

    remote.push(dict.fromkeys(STRANGE))
    assert airflow.sync() == {}


def import_errors() -> int:
    """How many Airflow's page shows."""
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session

    with create_session() as session:
        return int(session.query(ParseImportError).count())


def test_the_last_valid_version_of_a_broken_project_runs_with_its_own_files(
    airflow: _Airflow, remote: Remote
) -> None:
    text = "name: p\ntemplate: data@1\nsources: {d: 'path:data'}\n"
    remote.push({"p/tracklayer.yaml": text, "p/data/a": "valid"})
    assert airflow.sync() == {}
    # The spec is broken, and the data is another already.
    newest = remote.push({"p/tracklayer.yaml": text + "x: 1\n", "p/data/a": "broken"})
    assert [Path(path).name for path in airflow.sync()] == ["project-p__error.py"]
    run = airflow.trigger("p")
    assert run.version == newest
    assert run.step("fetch-d") == "success"
    assert run.record()["steps"]["fetch-d"]["files"][0]["size"] == len("valid")
    assert run.record()["commit"] != newest


def test_a_version_of_a_dag_is_made_only_by_a_change_of_its_spec(
    airflow: _Airflow, remote: Remote
) -> None:
    """And at once, however short ago the last change was."""
    from airflow.models.dag import DagModel
    from airflow.models.dag_version import DagVersion
    from airflow.utils.session import create_session

    def seen() -> tuple[int, Any]:
        with create_session() as session:
            versions = session.query(DagVersion).filter_by(dag_id="p").count()
            return versions, session.query(DagModel).filter_by(dag_id="p").one().bundle_version

    first = remote.push({"p/tracklayer.yaml": spec("p")})
    airflow.sync()
    assert seen() == (1, first)
    airflow.sync()
    assert seen() == (1, first)
    second = remote.push({"p/train.py": "print(1)\n"})
    airflow.sync()
    assert seen() == (1, second)
    assert airflow.trigger("p").version == second
    third = remote.push({"p/tracklayer.yaml": spec("p", "description: new")})
    airflow.sync()
    assert seen() == (2, third)
