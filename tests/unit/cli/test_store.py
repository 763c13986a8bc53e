from __future__ import annotations

import json
import os
import re
import time

import pytest

from tracklayer.settings import settings
from tracklayer.store import Store, open_store

HANDLE = "hf://org/model@main"


@pytest.fixture
def store(own_home) -> Store:
    """The store of a home, with a source, an artifact, a model of two files and a deployment."""
    made = open_store()
    tree = made.root.parent / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.txt").write_text("alpha")
    (tree / "sub/b.bin").write_bytes(b"beta" * 1000)
    origin = {"handle": HANDLE, "revision": "c" * 40}
    manifest = made.put_tree(tree, origin=origin)
    made.remember("the key", manifest)
    made.remember("the handle", manifest)
    made.set_ref("deployments/digits/3", made.put_tree(tree, origin={"run": "digits/r"}))
    place = f"mlflow/1/{'a' * 32}/artifacts"
    made.set_ref(f"{place}/record.json", made.put_file(tree / "a.txt"))
    model = f"{place}/model/{'d' * 12}"
    made.set_ref(f"{model}/m.onnx", made.put_file(tree / "a.txt"))
    made.set_ref(f"{model}/sub/x", made.put_file(tree / "sub/b.bin"))
    return made


def manifest_of(store):
    return store.ref("deployments/digits/3")


def test_all_kinds_are_listed(call, store):
    code, out, err = call("store", "ls")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line]
    assert [row[:2] for row in rows if row[0] in ("source", "models", "artifacts", "deployments")]
    assert [HANDLE, "cccccccccccc", "2", "4.0", "kB"] in [row[:5] for row in rows]
    assert [f"mlflow/1/{'a' * 32}"] in [row[:1] for row in rows]
    assert ["deployments/digits/3"] in [row[:1] for row in rows]

    found = json.loads(call("store", "ls", "--json")[1])
    (source,) = found["sources"]  # by its revision and by its handle, and still one
    assert (source["handle"], source["revision"]) == (HANDLE, "c" * 40)
    assert (source["files"], source["size"]) == (2, 4005)
    (model,) = found["models"]
    assert model["name"] == f"mlflow/1/{'a' * 32}/artifacts/model/{'d' * 12}"
    assert (model["files"], model["size"]) == (2, 4005)
    assert [row["name"] for row in found["deployments"]] == ["deployments/digits/3"]
    assert found["runs"] == found["others"] == []
    assert found["usage"]["sealed"] == 2
    assert found["usage"]["quota"] is None


def test_models_that_mlflow_has_logged_are_told_apart(call, store):
    blob = store.ref(f"mlflow/1/{'a' * 32}/artifacts/record.json")
    for model in ("m-1", "m-2"):
        for name in ("MLmodel", "model.onnx"):
            store.set_ref(f"mlflow/1/models/{model}/artifacts/{name}", blob)
    found = json.loads(call("store", "ls", "--json")[1])["models"]
    logged = {row["name"]: row["files"] for row in found if "/models/" in row["name"]}
    assert logged == {f"mlflow/1/models/m-{number}/artifacts": 2 for number in (1, 2)}


def test_an_empty_store(call, own_home):
    code, out, _ = call("store", "ls")
    assert (code, out) == (0, "0 bytes used by 0 files and 0 downloads.\n")
    assert call("store", "verify")[0] == 0
    assert call("store", "gc")[0] == 0


@pytest.mark.parametrize(
    ("what", "paths"),
    [
        ("deployments/digits/3", ["a.txt", "sub/b.bin"]),
        ("deployments/dig", ["a.txt", "sub/b.bin"]),
        (HANDLE, ["a.txt", "sub/b.bin"]),
        (f"mlflow/1/{'a' * 32}/artifacts/model", ["m.onnx", "sub/x"]),
        ("mlflow/", [f"model/{'d' * 12}/m.onnx", f"model/{'d' * 12}/sub/x", "record.json"]),
        (f"mlflow/1/{'a' * 32}/artifacts/record.json", ["record.json"]),
    ],
)
def test_something_is_found_by_what_people_call_it(call, store, what, paths):
    found = json.loads(call("store", "show", what, "--json")[1])
    assert [file["path"] for file in found["files"]] == paths


def test_a_digest_is_found_by_its_first_digits(call, store):
    manifest = manifest_of(store)
    for digits in (manifest.digest, manifest.digest[7:19], manifest.digest[:19]):
        found = json.loads(call("store", "show", digits, "--json")[1])
        assert (found["digest"], found["name"]) == (manifest.digest, "deployments/digits/3")
    one = manifest.files[1]
    found = json.loads(call("store", "show", one.digest[7:20], "--json")[1])
    assert [file["path"] for file in found["files"]] == ["b.bin"]
    code, out, _ = call("store", "show", manifest.digest[7:19])
    assert code == 0
    assert ["run", "digits/r"] in [line.split() for line in out.splitlines()]
    assert ["sub/b.bin", "4.0", "kB", one.digest[7:19]] in [row.split() for row in out.splitlines()]


def test_a_tree_without_a_name_is_found_by_its_whole_digest(call, store):
    manifest = manifest_of(store)
    store.drop_ref("deployments/digits/3")
    found = json.loads(call("store", "show", manifest.digest, "--json")[1])
    assert found["origin"] == {"run": "digits/r"}
    code, _, err = call("store", "show", manifest.digest[7:19])
    assert code == 5
    assert "No digests in the store begin with" in err


def test_what_is_not_there(call, store):
    code, _, err = call("store", "show", "hf://org/modl@main")
    assert code == 5
    assert f"Did you mean {HANDLE}?" in err
    assert json.loads(call("store", "show", "0" * 64, "--json")[1])["error"]["exit_code"] == 5


def test_two_digests_that_begin_alike(call, store, monkeypatch):
    monkeypatch.setattr("tracklayer.cli.contents._DIGEST", re.compile("()"))
    code, _, err = call("store", "show", "")
    assert code == 5
    assert "4 digests in the store begin with ." in err
    assert "Give more of its digits." in err


@pytest.mark.parametrize(
    "what", ["deployments/digits/3", f"mlflow/1/{'a' * 32}/artifacts/model", "record"]
)
def test_export_writes_plain_files(call, store, what, tmp_path):
    if what == "record":
        what = f"mlflow/1/{'a' * 32}/artifacts/record.json"
    into = tmp_path / "new" / "folder"
    code, out, _ = call("store", "export", what, str(into))
    assert code == 0, out
    shown = json.loads(call("store", "show", what, "--json")[1])
    files = {p.relative_to(into).as_posix(): p for p in into.rglob("*") if p.is_file()}
    assert sorted(files) == [file["path"] for file in shown["files"]]
    assert b"".join(files[name].read_bytes() for name in sorted(files))[:5] == b"alpha"

    code, _, err = call("store", "export", what, str(into))
    assert code == 5
    assert "is there, and not empty" in err
    into.joinpath("mine").mkdir()
    assert call("store", "export", what, str(into / "mine"))[0] == 0  # an empty one will do


def test_export_of_a_damaged_file_leaves_nothing(call, store, tmp_path):
    sealed = next(path for path in (store.root / "sealed").rglob("*") if path.is_file())
    sealed.chmod(0o600)
    sealed.write_bytes(sealed.read_bytes()[:-1] + b"?")
    code, _, err = call("store", "export", "deployments/digits/3", str(tmp_path / "into"))
    assert code == 5
    assert "damaged" in err
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []


def test_verify_tells_every_problem(call, store):
    assert call("store", "verify")[:2] == (0, "Everything is as it was.\n")
    paths = [path for path in (store.root / "sealed").rglob("*") if path.is_file()]
    for path in paths:
        path.chmod(0o600)
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"?")
    paths[1].unlink()
    code, _, err = call("store", "verify")
    assert code == 5
    for path in paths:
        assert f"{path.parent.name}{path.name}" in err
    code, out, _ = call("store", "verify", "--json")
    assert code == 5
    assert len(json.loads(out)["problems"]) >= 2


def test_gc_takes_what_nothing_needs(call, store, tmp_path):
    (tmp_path / "more").write_bytes(os.urandom(5000))
    with store.session():
        store.put_file(tmp_path / "more")
    code, out, _ = call("store", "gc", "--dry-run")
    assert code == 0
    assert out.startswith("Would free 6.")
    assert json.loads(call("store", "ls", "--json")[1])["usage"]["sealed"] == 3

    found = json.loads(call("store", "gc", "--json")[1])
    assert (found["objects"], found["dry_run"]) == (1, False)
    assert json.loads(call("store", "ls", "--json")[1])["usage"]["sealed"] == 2

    code, out, _ = call("store", "gc", "--quota", "1KiB")
    assert code == 0
    assert "more than the quota" in out  # what a deployment needs is not taken for a quota
    assert f"  {HANDLE}\n" in out
    assert json.loads(call("store", "ls", "--json")[1])["sources"] == []
    assert call("store", "verify")[0] == 0


def test_gc_of_sources_that_nobody_used_since(call, store):
    for ref in store.refs("sources/"):
        long_ago = time.time() - 31 * 86400
        os.utime(store.root / "refs" / f"{ref.name}@", (long_ago, long_ago))
    assert json.loads(call("store", "gc", "--older-than", "32d", "--json")[1])["sources"] == []
    assert len(json.loads(call("store", "gc", "--older-than", "30d", "--json")[1])["sources"]) == 2


def test_the_quota_of_the_settings(call, store, monkeypatch):
    monkeypatch.setenv("TRACKLAYER_STORE_QUOTA", "1KiB")
    settings.cache_clear()
    assert " of 1.0 kB used" in call("store", "ls")[1]
    assert json.loads(call("store", "gc", "--json")[1])["sources"]


@pytest.mark.parametrize("option", [("--quota", "many"), ("--older-than", "30"), ("--older-than",)])
def test_gc_with_no_size_or_time(call, store, option):
    code, _, err = call("store", "gc", *option)
    assert code == 64
    assert option[0] in err


def test_a_new_key(call, store):
    before = (settings().home / "keys/store").read_text()
    code, out, _ = call("store", "rotate-key")
    assert code == 0
    assert out.startswith("2 files are under a new key, ")
    after = (settings().home / "keys/store").read_text()
    assert after != before
    assert after.strip() not in out
    assert call("store", "verify")[0] == 0
    found = json.loads(call("store", "rotate-key", "--json")[1])
    assert (found["made"], found["rewrapped"], found["problems"]) == (True, 2, [])


def test_no_key_to_rotate(call, store, monkeypatch):
    monkeypatch.setenv("TRACKLAYER_STORE_KEY", "none")
    settings.cache_clear()
    code, _, err = call("store", "rotate-key")
    assert code == 5
    assert "is not encrypted" in err


def test_a_lost_key_is_named(call, store):
    (settings().home / "keys/store").unlink()
    code, _, err = call("store", "verify")
    assert code == 5
    assert "keys/store" in err
    assert call("store", "ls")[0] == 0  # what is there can still be told
