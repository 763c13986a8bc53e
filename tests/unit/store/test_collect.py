"""What nothing names goes; what a name reaches stays."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import Manifest, Store
from tracklayer.store.collect import Collected

DAY = 24 * 3600.0


def put(store: Store, folder: Path, **files: str) -> Manifest:
    tree = folder / f"tree-{'-'.join(files)}"
    tree.mkdir()
    for name, content in files.items():
        (tree / name).write_text(content)
    return store.put_tree(tree, origin={"of": tree.name})


def source(store: Store, manifest: Manifest, key: str, *, age: float) -> str:
    """Remember a source that was last used ``age`` seconds ago; its name."""
    before = {ref.name for ref in store.refs("sources/")}
    store.remember(key, manifest)
    [name] = {ref.name for ref in store.refs("sources/")} - before
    then = time.time() - age
    os.utime(store.root / "refs" / f"{name}@", (then, then))
    return name


def test_only_what_a_name_reaches_stays(store: Store, tmp_path: Path) -> None:
    kept = put(store, tmp_path, a="shared", b="mine")
    gone = put(store, tmp_path, c="shared", d="nobody's")
    with store.create() as writer:
        writer.write(b"alone")
        alone = writer.commit()
    store.set_ref("runs/x/1/train", kept)
    store.set_ref("mlflow/m", alone)
    usage = store.usage()
    said = store.collect(dry_run=True)
    assert store.usage() == usage
    assert (said.trees, said.objects, said.sources) == (1, 1, ())
    assert said.freed > 0
    assert store.collect() == said
    assert store.has(kept)
    assert not store.has(gone)
    assert store.ref("mlflow/m") == alone
    with pytest.raises(StoreError, match="there is no tree"):
        store.manifest(gone.digest)
    assert store.verify() == []
    assert store.collect() == Collected((), 0, 0, 0, 0, said.kept, 0)
    store.drop_ref("runs/x/1/train")
    assert store.collect().objects == 2
    assert store.collect().kept == sum(path.stat().st_size for path in store.root.rglob("??/*"))


def test_sources_are_kept_while_there_is_room(store: Store, tmp_path: Path) -> None:
    manifest = put(store, tmp_path, a="data")
    source(store, manifest, "key", age=100 * DAY)
    assert store.collect().objects == 0
    assert store.collect(quota=1 << 40).sources == ()
    assert store.recall("key") == manifest


def test_a_quota_drops_the_sources_that_were_not_used_for_longest(
    store: Store, tmp_path: Path
) -> None:
    trees = {name: put(store, tmp_path, **{name: name * 100_000}) for name in "abcd"}
    names = {
        name: source(store, trees[name], name, age=age * DAY)
        for name, age in {"a": 3, "b": 1, "c": 2, "d": 4}.items()
    }
    store.set_ref("runs/x/1/train", trees["d"])  # a run needs the oldest
    whole = store.collect().kept
    assert store.collect(quota=whole).sources == ()
    assert store.recall("a")  # which is its use
    dropped = store.collect(quota=whole - 1)
    assert dropped.sources == (names["c"],)
    assert dropped.objects == 1
    assert dropped.over == 0
    assert [name for name in "abcd" if store.recall(name)] == ["a", "b", "d"]
    assert store.verify() == []


def test_what_is_shared_counts_once(store: Store, tmp_path: Path) -> None:
    one = put(store, tmp_path, a="x" * 100_000)
    two = put(store, tmp_path, b="x" * 100_000)
    source(store, one, "one", age=2 * DAY)
    source(store, two, "two", age=1 * DAY)
    assert store.collect(quota=store.collect().kept).sources == ()


def test_what_must_be_kept_is_kept_over_the_quota(store: Store, tmp_path: Path) -> None:
    manifest = put(store, tmp_path, a="champion")
    store.set_ref("deployments/digits/3", manifest)
    name = source(store, put(store, tmp_path, b="cache"), "key", age=0)
    done = store.collect(quota=1)
    assert done.sources == (name,)
    assert done.over == done.kept - 1 > 0
    assert store.has(manifest)
    assert store.ref("deployments/digits/3") == manifest


def test_sources_that_were_not_used_for_long(store: Store, tmp_path: Path) -> None:
    old = source(store, put(store, tmp_path, a="old"), "old", age=10 * DAY)
    source(store, put(store, tmp_path, b="new"), "new", age=1 * DAY)
    assert store.collect(older_than=5 * DAY).sources == (old,)
    assert store.recall("new")
    assert store.recall("old") is None


def test_a_damaged_source_is_dropped_and_any_other_damage_ends_it(
    store: Store, tmp_path: Path
) -> None:
    name = source(store, put(store, tmp_path, a="cache"), "key", age=0)
    (store.root / "refs" / f"{name}@").write_text("{")
    store.set_ref("deployments/digits/3", put(store, tmp_path, b="champion"))
    assert store.collect(dry_run=True).sources == (name,)
    [path] = (store.root / "refs" / "deployments" / "digits").iterdir()
    path.write_text("{")
    usage = store.usage()
    with pytest.raises(StoreError, match="damaged"):
        store.collect()
    assert store.usage() == usage


def test_a_draft_waits_a_day(store: Store) -> None:
    with store.draft("x", 100) as draft:
        draft.write(0, bytes(100))
    [folder] = store.root.glob("drafts/*")
    assert store.collect().drafts == 0
    assert store.collect(quota=0, dry_run=True).drafts == 1
    then = time.time() - 2 * DAY
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))
    done = store.collect()
    assert (done.drafts, done.kept) == (1, 0)
    assert done.freed > 0
    assert not folder.exists()


def test_a_session_holds_it_up(store: Store, tmp_path: Path) -> None:
    with store.session(), store.session():
        manifest = put(store, tmp_path, a="not named yet")
        with pytest.raises(StoreError, match=r"being stored or read; waited 0.1 s"):
            store.collect(wait=0.1)
        store.set_ref("runs/x/1/train", manifest)
    assert store.collect(wait=0.1).objects == 0


def test_it_waits_for_the_session(store: Store, tmp_path: Path) -> None:
    done: list[Collected] = []
    with store.session():
        manifest = put(store, tmp_path, a="not named yet")
        collector = threading.Thread(target=lambda: done.append(store.collect()))
        collector.start()
        time.sleep(0.2)
        assert not done
        store.set_ref("runs/x/1/train", manifest)
    collector.join(20)
    assert done[0].objects == 0
    assert store.has(manifest)


def test_empty_folders_of_names_go(store: Store, tmp_path: Path) -> None:
    store.set_ref("a/b/c/d", put(store, tmp_path, a="a"))
    store.set_ref("a/e", put(store, tmp_path, b="b"))
    store.drop_ref("a/b/c/d")
    store.collect()
    assert [path.name for path in (store.root / "refs" / "a").iterdir()] == ["e@"]


def test_an_empty_store(store: Store) -> None:
    assert store.collect(quota=0) == Collected((), 0, 0, 0, 0, 0, 0)
    assert store.usage() == (0,) * 8
    assert store.verify() == []
