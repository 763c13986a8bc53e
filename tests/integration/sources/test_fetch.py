"""From a handle to a tree: pinned, recorded, recalled, all of it or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import (
    SCHEMES,
    Context,
    Credential,
    Limits,
    Local,
    Remote,
    Source,
    Transfer,
    fetch,
)
from tracklayer.store import Store

QUICK = Limits(stall=1, tries=3, backoff=0.01)


@dataclass(frozen=True)
class Shelf:
    """A source of the tests: what is on the shelf, at the shelf's revision."""

    name: str
    listed: ClassVar[list[Remote | Local]] = []
    revision: ClassVar[str] = "1"
    asked: ClassVar[list[str]] = []

    @classmethod
    def parse(cls, handle: str) -> Self:
        return cls(handle.removeprefix("shelf:"))

    @property
    def pinned(self) -> str | None:
        return self.name.partition("@")[2] or None

    def pin(self, context: Context) -> str:
        self.asked.append(f"pin {credential(context)}")
        return self.revision

    def key(self, revision: str) -> str:
        return f"shelf:{self.name.partition('@')[0]}@{revision}"

    def files(self, revision: str, context: Context) -> Iterable[Remote | Local]:
        self.asked.append(f"files {revision}")
        for entry in self.listed:
            if isinstance(entry, Local):
                yield replace(entry, file=context.scratch / entry.file)
                continue
            yield entry


def credential(context: Context) -> str:
    found = context.credential("shelf")
    return found.login if found else "nobody"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> type[Shelf]:
    monkeypatch.setitem(SCHEMES, "shelf", "shelf_of_a_test:Shelf")
    module = type(sys)("shelf_of_a_test")
    module.__dict__["Shelf"] = Shelf
    monkeypatch.setitem(sys.modules, "shelf_of_a_test", module)
    monkeypatch.setattr(Shelf, "listed", [])
    monkeypatch.setattr(Shelf, "asked", [])
    monkeypatch.setattr(Shelf, "revision", "1")
    source: type[Source] = Shelf
    assert source
    return Shelf


def text(number: int) -> bytes:
    return f"a,b\n{number},2\n".encode()


def offer(shelf: type[Shelf], server: Any, promised: Any, *names: str) -> None:
    server.files = {f"/{name}": text(len(name)) for name in names}
    shelf.listed = [promised(name, server.url(f"/{name}"), text(len(name)), None) for name in names]


def test_recalled_and_recorded(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    offer(shelf, hostile_server, promised, "a.csv", "b/c.csv")
    with pytest.raises(SourceError, match=r"shelf:x is not in the store"):
        fetch("shelf:x", project=tmp_path, store=store, offline=True)
    first = fetch("shelf:x", project=tmp_path, store=store)
    assert (first.revision, first.cached) == ("1", False)
    assert [file.path for file in first.manifest.files] == ["a.csv", "b/c.csv"]
    assert first.manifest.origin == {"handle": "shelf:x", "revision": "1"}
    assert set(first.formats) == {"a.csv", "b/c.csv"}
    hostile_server.close()
    assert fetch("shelf:x", project=tmp_path, store=store) == first._replace(cached=True)
    assert shelf.asked == ["pin nobody", "files 1", "pin nobody"]
    # It moved; offline it means what it meant, and a revision that is stored can be named.
    shelf.revision = "2"
    assert fetch("shelf:x", project=tmp_path, store=store, offline=True) == first._replace(
        cached=True
    )
    named = fetch("shelf:x@1", project=tmp_path, store=store, offline=True)
    assert named == first._replace(handle="shelf:x@1", cached=True)
    with pytest.raises(SourceError, match="is not in the store"):
        fetch("shelf:x@2", project=tmp_path, store=store, offline=True)
    assert len(shelf.asked) == 3


def test_offline_means_the_last_fetch(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    offer(shelf, hostile_server, promised, "a.csv")
    fetch("shelf:x", project=tmp_path, store=store)
    offer(shelf, hostile_server, promised, "b.csv")
    shelf.revision = "2"
    second = fetch("shelf:x", project=tmp_path, store=store)
    shelf.revision = "1"  # back again: stored, and from now on what it means
    first = fetch("shelf:x", project=tmp_path, store=store)
    assert (first.cached, first.revision) == (True, "1")
    assert first.manifest != second.manifest
    assert fetch("shelf:x", project=tmp_path, store=store, offline=True) == first


def test_no_socket_and_no_time(tmp_path: Path, hostile_server: Any) -> None:
    """The second fetch of 100 files asks for no socket, and takes less than 50 ms."""
    hostile_server.files = {f"/{number}": text(number) for number in range(100)}
    (tmp_path / "many.py").write_text(
        "from tracklayer.sources import Remote\n"
        "class Many:\n"
        "    pinned = '1'\n"
        "    @classmethod\n"
        "    def parse(cls, handle):\n"
        "        return cls()\n"
        "    def key(self, revision):\n"
        "        return 'many'\n"
        "    def files(self, revision, context):\n"
        f"        url = {hostile_server.url('')!r}\n"
        "        return [Remote(f'{n}', f'{url}/{n}') for n in range(100)]\n"
    )
    program = f"""
import sys, time
from pathlib import Path
from tracklayer.sources import SCHEMES, fetch
from tracklayer.store import Store, keys_of
SCHEMES["many"] = "many:Many"
folder = Path({str(tmp_path)!r})

def get(offline):
    store = Store(folder / "store", keys_of(f"file:{{folder}}/keys/store", root=folder))
    begin = time.perf_counter()
    found = fetch("many:x", project=folder, store=store, offline=offline)
    return found, time.perf_counter() - begin

first, _ = get(False)
events = []
sys.addaudithook(lambda name, _: name.startswith("socket.") and events.append(name))
again = [get(offline) for offline in (False, True, False, True, False)]
assert len(first.manifest.files) == 100
assert all(found == first._replace(cached=True) for found, _ in again)
print(events, min(seconds for _, seconds in again))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    events, seconds = done.stdout.rsplit(maxsplit=1)
    assert events == "[]"
    assert float(seconds) < 0.05


def test_two_threads_at_once(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    offer(shelf, hostile_server, promised, *(f"{n}.csv" for n in range(20)))
    hostile_server.delay = 0.1
    found: list[bool] = []
    said: list[str] = []

    def get() -> None:
        found.append(
            fetch("shelf:x@1", project=tmp_path, store=store, on_progress=said.append).cached
        )

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, True, True]
    assert len(hostile_server.requests) == 20
    assert sum("another run is fetching the same" in line for line in said) == 2


def test_one_bad_file_of_several(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    """Nothing is half done; what was good is not fetched again."""
    names = [f"{number}.csv" for number in range(30)]
    offer(shelf, hostile_server, promised, *names)
    hostile_server.delay = 0.005
    hostile_server.files.pop("/17.csv")
    with pytest.raises(SourceError, match=r"/17\.csv: the server answered 404"):
        fetch("shelf:x@1", project=tmp_path, store=store, limits=QUICK)
    assert list(store.root.glob("manifests/*")) == []
    assert list(store.refs()) == []
    assert list((store.root / "tmp").iterdir()) == []
    good = len([asked for asked in hostile_server.requests if asked.path != "/17.csv"])
    hostile_server.files["/17.csv"] = text(6)
    assert not fetch("shelf:x@1", project=tmp_path, store=store).cached
    assert good >= 5
    assert len(hostile_server.requests) <= 31 + 16  # those that were under way are asked again
    assert store.verify() == []


def test_equal_files_are_fetched_once(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    hostile_server.files["/f"] = text(1)
    one = promised("one.csv", hostile_server.url("/f"), text(1))
    shelf.listed = [one, replace(one, path="x/two.csv", executable=True)]
    found = fetch("shelf:x@1", project=tmp_path, store=store).manifest
    assert [(f.path, f.executable) for f in found.files] == [
        ("one.csv", False),
        ("x/two.csv", True),
    ]
    assert len(hostile_server.requests) == 1
    # Another source has the same content: it is in the store already.
    fetch("shelf:y@1", project=tmp_path, store=store)
    assert len(hostile_server.requests) == 1


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["a", "a"], "twice"),
        (["a", "a/b"], "a folder too"),
        (["../a"], "cannot be the path"),
        (["/a"], "cannot be the path"),
        (["a//b"], "cannot be the path"),
        (["a/./b"], "cannot be the path"),
        (["a\0b"], "cannot be the path"),
        ([""], "cannot be the path"),
        ([], "no files"),
    ],
)
def test_lists_that_are_no_tree(
    hostile_server: Any,
    store: Store,
    tmp_path: Path,
    shelf: type[Shelf],
    promised: Any,
    paths: list[str],
    says: str,
) -> None:
    shelf.listed = [promised(path, hostile_server.url("/f"), text(1)) for path in paths]
    with pytest.raises(SourceError, match=says):
        fetch("shelf:x@1", project=tmp_path, store=store)
    assert hostile_server.requests == []


def test_local_files(
    store: Store, tmp_path: Path, shelf: type[Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a source makes in the scratch folder is stored; the folder is gone afterwards."""
    places: list[Path] = []

    def files(self: Shelf, revision: str, context: Context) -> Iterable[Local]:
        places.append(context.scratch)
        (context.scratch / "made.csv").write_bytes(text(1))
        yield Local("a/made.csv", context.scratch / "made.csv", executable=True)

    monkeypatch.setattr(Shelf, "files", files)
    found = fetch("shelf:x@1", project=tmp_path, store=store).manifest
    assert [(f.path, f.executable, f.size) for f in found.files] == [
        ("a/made.csv", True, len(text(1)))
    ]
    (tmp_path / "private").mkdir()
    fetch("shelf:y@1", project=tmp_path, store=store, scratch=tmp_path / "private")
    assert places[0].is_relative_to(store.root)
    assert places[1].parent == tmp_path / "private"
    assert not places[0].exists()
    assert not places[1].exists()


def test_a_local_file_that_changed(store: Store, tmp_path: Path, shelf: type[Shelf]) -> None:
    (tmp_path / "f.csv").write_bytes(text(1))
    shelf.listed = [Local("f.csv", tmp_path / "f.csv", digest=f"sha256:{'0' * 64}")]
    with pytest.raises(SourceError, match=r"f\.csv changed"):
        fetch("shelf:x@1", project=tmp_path, store=store)


def test_formats_need_the_consent_of_each_project(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    """Also where another project, that agreed, has fetched it already; and it is fetched once."""
    import pickle

    data = pickle.dumps({"a": 1})
    hostile_server.files["/m.pkl"] = data
    shelf.listed = [promised("m.pkl", hostile_server.url("/m.pkl"), data)]
    with pytest.raises(SourceError, match=r"m\.pkl"):
        fetch("shelf:x@1", project=tmp_path, store=store)
    assert list(store.refs()) == []
    allow = frozenset({"pickle"})
    agreed = fetch("shelf:x@1", project=tmp_path, store=store, allow=allow)
    assert "pickle" in agreed.formats["m.pkl"]
    assert fetch("shelf:x@1", project=tmp_path, store=store, allow=allow).formats == agreed.formats
    with pytest.raises(SourceError, match=r"m\.pkl"):
        fetch("shelf:x@1", project=tmp_path, store=store)
    assert len(hostile_server.requests) == 1


def test_an_archive_is_unpacked_into_the_store(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("train.csv", text(1))
        archive.writestr("deep/test.csv", text(2))
    hostile_server.files["/f.zip"] = packed.getvalue()
    remote = promised("data/f.zip", hostile_server.url("/f.zip"), packed.getvalue())
    shelf.listed = [replace(remote, unpack=True)]
    found = fetch("shelf:x@1", project=tmp_path, store=store)
    assert [file.path for file in found.manifest.files] == ["data/deep/test.csv", "data/train.csv"]
    assert set(found.formats) == {"data/deep/test.csv", "data/train.csv"}


def test_progress(
    hostile_server: Any, store: Store, tmp_path: Path, shelf: type[Shelf], promised: Any
) -> None:
    data = os.urandom(3_000_000)
    names = ["a.bin", "b.bin", "c.bin"]
    hostile_server.files = {f"/{name}": data[: 900_000 + n] for n, name in enumerate(names)}
    shelf.listed = [
        promised(name, hostile_server.url(f"/{name}"), hostile_server.files[f"/{name}"])
        for name in names
    ]
    hostile_server.rate = 600_000
    said: list[str] = []
    seen: list[Transfer] = []
    fetch(
        "shelf:x@1",
        project=tmp_path,
        store=store,
        on_progress=said.append,
        on_bytes=seen.append,
        allow=frozenset({"unknown"}),
    )
    assert said[0].startswith("shelf:x@1: ")
    assert "of 2.7 MB, " in said[0]
    assert "MB/s" in said[0]
    assert " left, file 1 of 3" in said[0]
    assert said[-1].startswith("shelf:x@1: 2.7 MB in 3 files, 2.7 MB fetched in ")
    assert len(seen) >= 5
    assert [t.done for t in seen] == sorted(t.done for t in seen)
    assert seen[-1][:4] == (2_700_003, 2_700_003, 3, 3)
    assert max(t.rate for t in seen) > 300_000


def test_credentials_are_asked_for_by_kind(
    store: Store, tmp_path: Path, shelf: type[Shelf], hostile_server: Any, promised: Any
) -> None:
    offer(shelf, hostile_server, promised, "a.csv")

    def ask(kind: str) -> Credential | None:
        return Credential("somebody", "hunter2") if kind == "shelf" else None

    fetch("shelf:x", project=tmp_path, store=store, credential=ask)
    assert shelf.asked[0] == "pin somebody"
    assert "hunter2" not in repr(Credential("somebody", "hunter2", {"key": "hunter2"}))
