"""`path:` sources: what lies in the project folder, and nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import fetch
from tracklayer.store import Store


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "a.csv").write_text("1,2\n")
    (folder / "data" / "deep" / "b.csv").write_text("3,4\n")
    (tmp_path / "secret").write_text("not of the project")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_file(project: Path, store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    first = fetch("path:data/a.csv", project=project, store=store, on_progress=said.append)
    assert [f.path for f in first.manifest.files] == ["a.csv"]
    assert first.manifest.origin == {"handle": "path:data/a.csv", "revision": first.revision}
    assert not first.cached
    assert said == ["storing data/a.csv"]
    again = fetch("path:data/a.csv", project=project, store=store)
    assert again == first._replace(cached=True)
    store.materialise(first.manifest.digest, tmp_path / "out")
    assert (tmp_path / "out/a.csv").read_text() == "1,2\n"


def test_a_folder_and_a_change_in_it(project: Path, store: Store) -> None:
    first = fetch("path:data", project=project, store=store)
    assert [f.path for f in first.manifest.files] == ["a.csv", "deep/b.csv"]
    (project / "data/a.csv").write_text("1,3\n")
    second = fetch("path:data", project=project, store=store)
    assert not second.cached
    assert second.revision != first.revision
    (project / "data/a.csv").rename(project / "data/c.csv")
    third = fetch("path:data", project=project, store=store)
    assert third.revision not in (first.revision, second.revision)
    assert (project / "data/c.csv").read_text() == "1,3\n"
    assert store.verify() == []


def test_what_was_damaged_in_the_store_is_fetched_again(project: Path, store: Store) -> None:
    fetch("path:data", project=project, store=store)
    next(store.root.glob("objects/*/*")).unlink()
    assert not fetch("path:data", project=project, store=store).cached
    assert store.verify() == []


@pytest.mark.parametrize("link", ["file", "folder", "inside"])
def test_a_link_does_not_lead_out(project: Path, store: Store, tmp_path: Path, link: str) -> None:
    if link == "file":
        (project / "x").symlink_to(tmp_path / "secret")
    elif link == "folder":
        (project / "x").symlink_to(tmp_path)
    else:
        (project / "x").mkdir()
        (project / "x" / "y").symlink_to("../../secret")
    with pytest.raises(SourceError, match=r"through a link|leaves the folder"):
        fetch("path:x", project=project, store=store)
    assert list(store.root.glob("objects/*/*")) == []


def test_missing_and_empty(project: Path, store: Store) -> None:
    with pytest.raises(SourceError, match="does not exist in the project"):
        fetch("path:data/nope.csv", project=project, store=store)
    (project / "empty").mkdir()
    with pytest.raises(SourceError, match="empty folder"):
        fetch("path:empty", project=project, store=store)
