"""Names for what is stored."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracklayer.errors import StoreError
from tracklayer.store import Blob, Manifest, Store
from tracklayer.store.refs import Refs


@pytest.fixture
def blob(store: Store) -> Blob:
    with store.create() as writer:
        writer.write(b"content")
        return writer.commit()


@pytest.fixture
def tree(store: Store, tmp_path: Path) -> Manifest:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("in a tree")
    return store.put_tree(tmp_path / "tree", origin={"handle": "path:tree"})


def test_a_name_means_an_object_or_a_tree(store: Store, blob: Blob, tree: Manifest) -> None:
    assert store.ref("runs/digits/7/train") is None
    before = time.time() - 1
    store.set_ref("runs/digits/7/train", tree)
    store.set_ref("mlflow/0/ab/artifacts/model/m.onnx", blob)
    assert store.ref("runs/digits/7/train") == tree
    assert store.ref("mlflow/0/ab/artifacts/model/m.onnx") == blob
    found = list(store.refs())
    assert [(ref.name, ref.target) for ref in found] == [
        ("mlflow/0/ab/artifacts/model/m.onnx", blob),
        ("runs/digits/7/train", tree),
    ]
    assert all(before < ref.changed < time.time() + 1 for ref in found)


def test_a_name_can_be_given_anew_and_dropped(store: Store, blob: Blob, tree: Manifest) -> None:
    store.set_ref("a", tree)
    store.set_ref("a", blob)
    assert store.ref("a") == blob
    store.drop_ref("a")
    store.drop_ref("a")
    assert store.ref("a") is None
    assert list(store.refs()) == []


def test_a_name_may_begin_as_another(store: Store, blob: Blob) -> None:
    names = ["a", "a/b", "a/b/c", "a@", "a@/b", "a%40", "ab", "ä ö/.hidden", "x.json/y"]
    for name in names:
        store.set_ref(name, blob)
    assert [ref.name for ref in store.refs()] == sorted(names)
    assert [ref.name for ref in store.refs("a/")] == ["a/b", "a/b/c"]
    assert [ref.name for ref in store.refs("a/b/")] == ["a/b/c"]
    assert [ref.name for ref in store.refs("a@")] == ["a@", "a@/b"]
    assert [ref.name for ref in store.refs("nothing/here")] == []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_every_name_lies_inside_or_is_refused(tmp_path: Path, parts: list[str]) -> None:
    refs = Refs(tmp_path)
    name = "/".join(parts)
    try:
        path = refs.path(name)
    except StoreError:
        assert any(part in ("", ".", "..") or "\0" in part for part in name.split("/"))
    else:
        assert path.is_relative_to(tmp_path / "refs")
        assert ".." not in path.parts


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\0"])
def test_what_is_no_path_is_refused(store: Store, blob: Blob, name: str) -> None:
    with pytest.raises(StoreError, match="is not a name"):
        store.set_ref(name, blob)


def test_only_what_is_stored_gets_a_name(store: Store, tree: Manifest) -> None:
    with pytest.raises(StoreError, match="not in the store"):
        store.set_ref("a", Blob(digest="sha256:" + "0" * 64, size=1))
    unknown = tree.model_copy(update={"origin": {"handle": "other"}})
    with pytest.raises(StoreError, match="there is no tree"):
        store.set_ref("a", unknown)
    assert list(store.refs()) == []


@pytest.mark.parametrize("raw", ["", "[]", "{}", '{"manifest": "x"}', '{"digest": "x", "size": 1}'])
def test_a_damaged_name_says_where(store: Store, blob: Blob, raw: str) -> None:
    store.set_ref("a/b", blob)
    path = store.root / "refs" / "a" / "b@"
    path.chmod(0o600)
    path.write_text(raw)
    with pytest.raises(StoreError, match="is damaged") as caught:
        store.ref("a/b")
    assert f"Remove {path}" in str(caught.value)
    assert store.verify() == [f"the name a/b: {path} is damaged"]


def test_a_name_for_what_is_gone_is_found(store: Store, blob: Blob, tree: Manifest) -> None:
    store.set_ref("one", blob)
    store.set_ref("two", tree)
    for path in [*store.root.glob("manifests/*"), *store.root.glob("*/??/*")]:
        path.unlink()
    problems = store.verify()
    assert len(problems) == 2
    assert f"{blob.digest} is missing: the name one" in problems
