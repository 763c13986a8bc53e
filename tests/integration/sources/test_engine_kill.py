"""Fetching processes that are killed, that meet, and that run out of disk."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Never

import pytest

from tracklayer.errors import SourceError, StoreError
from tracklayer.sources import fetch
from tracklayer.store import Store, keys_of

MIB = 1 << 20
_SOURCE = '''
"""Files of a list, by their addresses."""
import json, sys
from tracklayer.sources import Remote

class Listed:
    pinned = "1"
    def __init__(self, url):
        self.url = url
    @classmethod
    def parse(cls, handle):
        return cls(handle.removeprefix("listed:"))
    def pin(self, context):
        return "1"
    def key(self, revision):
        return f"listed {self.url} {revision}"
    def files(self, revision, context):
        listed = json.loads((context.project / "list.json").read_text())
        return [Remote(path=p, url=f"{self.url}/{p}", size=s, digest=d) for p, s, d in listed]
'''
_PROGRAM = """
import sys
from pathlib import Path
from tracklayer.errors import TracklayerError
from tracklayer.sources import fetch, registry
from tracklayer.store import Store, keys_of
registry.SCHEMES["listed"] = "listed:Listed"
folder, handle = Path(sys.argv[1]), sys.argv[2]
store = Store(folder / "store", keys_of(f"file:{folder}/keys/store", root=folder))
try:
    print("begin", flush=True)
    done = fetch(handle, project=folder, store=store, allow=frozenset({"unknown"}),
                 on_progress=lambda line: print(line, flush=True))
except TracklayerError as error:
    sys.exit(f"error: {error}")
print("done", done.manifest.digest, done.cached)
"""


class Processes:
    """Fetches in processes of their own, with one store and one list of files."""

    def __init__(self, folder: Path, server: Any) -> None:
        self.folder, self.server = folder, server
        self._running: list[subprocess.Popen[str]] = []
        (folder / "listed.py").write_text(_SOURCE)

    def offer(self, files: dict[str, bytes], *, digests: bool = True) -> None:
        """What the server has, and the list says."""
        listed = [
            f'["{path}", {len(data)}, '
            + (f'"sha256:{hashlib.sha256(data).hexdigest()}"]' if digests else "null]")
            for path, data in files.items()
        ]
        (self.folder / "list.json").write_text(f"[{', '.join(listed)}]")
        self.server.files = {f"/{path}": data for path, data in files.items()}

    def start(self, handle: str | None = None) -> subprocess.Popen[str]:
        handle = handle or f"listed:{self.server.url('')}"
        self._running.append(
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self.folder), handle],
                env=os.environ | {"PYTHONPATH": str(self.folder)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self._running[-1]

    def finish(self, process: subprocess.Popen[str]) -> str:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        return said

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def store(self) -> Store:
        return Store(
            self.folder / "store", keys_of(f"file:{self.folder}/keys/store", root=self.folder)
        )

    def content(self, said: str) -> dict[str, bytes]:
        """What the store has of the tree that a process named at its end."""
        store = self.store()
        manifest = store.manifest(said.split()[-2])
        found = {}
        for file in manifest.files:
            with store.open(file) as stream:
                found[file.path] = stream.read()
        return found

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                self.kill(process)


@pytest.fixture
def processes(tmp_path: Path, hostile_server: Any) -> Iterator[Processes]:
    made = Processes(tmp_path, hostile_server)
    yield made
    made.close()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_at_half_and_started_again(processes: Processes, hostile_server: Any) -> None:
    """At most 1.02 of the bytes go over the wire in all."""
    size = 512 * MIB
    content = random.randbytes(MIB) * (size // MIB)
    hostile_server.files["/f.csv"] = content
    hostile_server.rate = 10e6  # so that a busy machine can keep up
    digest = hashlib.sha256(content).hexdigest()
    handle = f"{hostile_server.url('/f.csv')}#sha256={digest}"
    first = processes.start(handle)
    _until(lambda: hostile_server.served >= size / 2)
    processes.kill(first)
    time.sleep(0.2)
    before = hostile_server.served
    assert size * 0.5 <= before < size * 0.9
    said = processes.finish(processes.start(handle))
    assert hostile_server.served <= 1.02 * size
    manifest = processes.store().manifest(said.split()[-2])
    assert [(file.path, file.digest) for file in manifest.files] == [("f.csv", f"sha256:{digest}")]
    assert processes.store().verify() == []


@pytest.mark.parametrize("digests", [True, False])
def test_many_files_killed_at_half(
    processes: Processes, hostile_server: Any, digests: bool
) -> None:
    """A file that is there is not fetched again, also where nothing but the list names it."""
    files = {f"{number}.bin": random.randbytes(20_000) for number in range(300)}
    processes.offer(files, digests=digests)
    hostile_server.delay = 0.02
    total = sum(map(len, files.values()))
    first = processes.start()
    _until(lambda: hostile_server.served >= total / 2)
    processes.kill(first)
    said = processes.finish(processes.start())
    assert processes.content(said) == files
    # What was on its way on each of the 16 connections, or had come and was not yet stored.
    assert hostile_server.served <= total + 2 * 16 * 20_000


def test_killed_at_many_moments(processes: Processes, hostile_server: Any) -> None:
    files = {f"small/{number}.bin": random.randbytes(5_000) for number in range(60)}
    files |= {f"large{number}.bin": random.randbytes(12 * MIB + number) for number in range(2)}
    processes.offer(files)
    hostile_server.rate, hostile_server.delay = 10e6, 0.02
    chance = random.Random(7)
    for _ in range(4):
        process = processes.start()
        assert process.stdout is not None
        process.stdout.readline()  # its imports are done
        time.sleep(chance.uniform(0, 0.6))
        processes.kill(process)
        assert processes.store().verify() == []
    hostile_server.rate = 0
    said = processes.finish(processes.start())
    assert processes.content(said) == files
    assert processes.store().verify() == []
    assert list((processes.folder / "store/fetches").iterdir()) == []
    assert not [path for path in (processes.folder / "store/drafts").rglob("*") if path.is_file()]


def test_two_processes_at_once(processes: Processes, hostile_server: Any) -> None:
    files = {f"{number}.bin": random.randbytes(3 * MIB) for number in range(8)}
    processes.offer(files)
    hostile_server.rate = 5e6
    both = [processes.start(), processes.start()]
    said = [processes.finish(process) for process in both]
    assert sorted(text.split()[-1] for text in said) == ["False", "True"]
    assert sum("another run is fetching the same" in text for text in said) == 1
    assert processes.content(said[0]) == files == processes.content(said[1])
    assert hostile_server.served == sum(map(len, files.values()))


@pytest.fixture
def small_disk(tmp_path: Path, give_up: Callable[[str], Never]) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        give_up("a file system can be mounted only by root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("size", [10 * MIB, 100_000], ids=["parts", "whole"])
def test_the_disk_is_full_meanwhile(
    small_disk: Path, tmp_path: Path, hostile_server: Any, size: int
) -> None:
    """An error that says so, nothing half done, and it goes on when there is room."""
    content = random.randbytes(size)
    hostile_server.files["/f.bin"] = content
    store = Store(small_disk / "store", keys_of(f"file:{tmp_path}/keys/store", root=tmp_path))
    handle = f"{hostile_server.url('/f.bin')}#sha256={hashlib.sha256(content).hexdigest()}"
    filler = small_disk / "filler"

    def behave(exchange: Any, number: int) -> None:
        if not filler.exists():
            with suppress(OSError), filler.open("wb", buffering=0) as stream:
                while stream.write(bytes(1 << 16)):
                    pass
        exchange.good()

    hostile_server.behaviour = behave
    allow = frozenset({"unknown"})
    with pytest.raises((StoreError, SourceError)) as caught:
        fetch(handle, project=tmp_path, store=store, allow=allow)
    assert "Free some space" in str(caught.value)
    assert list(store.root.glob("manifests/*")) == []
    assert list(store.root.glob("refs/**/*@")) == []
    filler.write_bytes(b"")
    assert store.verify() == []
    fetched = fetch(handle, project=tmp_path, store=store, allow=allow)
    with store.open(fetched.manifest.files[0]) as stream:
        assert stream.read() == content
