"""Encrypted stores with things in them, and processes that die or fill the disk at any step."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tracklayer.store import Blob, Manifest, Store, scan
from tracklayer.store.keys import FileKeys
from tracklayer.store.seal import CHUNK

BIG = bytes(range(256)) * (CHUNK // 256) + b"12345"  # two chunks


@dataclass
class Room:
    """A store that encrypts, its keys, and files to store."""

    folder: Path

    @property
    def keys(self) -> FileKeys:
        return FileKeys(self.folder / "keys", self.folder / "store" / "sealed")

    @property
    def store(self) -> Store:
        """As a process that has just started opens it."""
        return Store(self.folder / "store", self.keys)

    def put(self, name: str, **files: bytes) -> Manifest:
        """Store files as a tree of that name."""
        folder = self.folder / "files" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            (folder / path).write_bytes(content)
        return self.store.put_tree(folder, origin={"name": name})

    def copy(self, name: str) -> Room:
        """The same in another folder."""
        folder = self.folder.parent / name
        shutil.copytree(self.folder, folder)
        return Room(folder)

    def move(self, folder: Path) -> None:
        """To another disk, for example."""
        shutil.move(self.folder, folder)
        self.folder = folder

    def check(self) -> None:
        """See that nothing is damaged, and that what had a name is there as it was stored."""
        assert self.store.verify() == []
        for name, tree in {"runs/x/1/train": "a", "deployments/x/1": "b"}.items():
            into = self.folder / "checked" / tree
            self.store.materialise(self.tree(name).digest, into)
            assert scan(into) == scan(self.folder / "files" / tree)
        shutil.rmtree(self.folder / "checked")

    def tree(self, name: str) -> Manifest:
        """What a name means."""
        found = self.store.ref(name)
        assert isinstance(found, Manifest)
        return found

    def content(self, name: str) -> bytes:
        """Of an object that has a name."""
        found = self.store.ref(name)
        assert isinstance(found, Blob)
        with self.store.open(found) as stream:
            return stream.read()

    def left_over(self) -> list[Path]:
        """What is being written, or was."""
        return [*self.store.root.glob("tmp/*"), *self.store.root.glob("drafts/*")]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """Nothing is stored yet. In memory where that can be: what `kill -9` leaves is the same, and
    hundreds of tries do not wait for a disk."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield Room(folder / "room")
    shutil.rmtree(folder)


@pytest.fixture
def furnished(room: Room) -> Room:
    """Two trees with names, a source, and something that nothing names; five objects."""
    room.store.set_ref("runs/x/1/train", room.put("a", big=BIG, small=b"small"))
    room.store.set_ref("deployments/x/1", room.put("b", shared=b"small", own=b"own"))
    room.store.remember("key", room.put("c", cached=b"cached"))
    room.put("d", garbage=b"garbage", shared=b"own")
    return room


Work = Callable[[], None]


class Children:
    """Processes of this one's code and memory."""

    def start(self, work: Work) -> int:
        """Begin some work; the process id."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
            traceback.print_exc()
            os._exit(1)

    def run(self, work: Work) -> int:
        """Do some work; its exit code, negative for a signal."""
        return self.wait(self.start(work))

    def wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def together(self, *works: Work) -> list[int]:
        """Do some works at the same time."""
        return [self.wait(pid) for pid in [self.start(work) for work in works]]

    def killed_at_every_step(self, work: Callable[[int], Work]) -> Iterator[int]:
        """Do it again and again, ended by ``kill -9`` before its first, its second, ... call that
        changes something on the disk, and half way through what such a call writes; gives the
        number of each try that was ended."""
        for step in range(1, 500):
            task = work(step)

            def doomed(step: int = step, task: Work = task) -> None:
                with _failing(step, _die):
                    task()

            code = self.run(doomed)
            if code == 0:
                assert step > 3  # there were steps
                return
            assert code == -signal.SIGKILL
            yield step
        pytest.fail("it never came to an end")


@pytest.fixture
def children() -> Children:
    return Children()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_CHANGES = ("open", "mkdir", "pwrite", "fsync", "ftruncate", "rename", "replace", "fchmod", "chmod")
_REMOVES = ("unlink", "rmdir", "utime")
_CREATES = os.O_CREAT


@contextmanager
def _failing(
    step: int, fail: Callable[[], None], names: Sequence[str] = (*_CHANGES, *_REMOVES)
) -> Iterator[list[str]]:
    """Let the system calls of these names fail from the given one on; those that were made."""
    made: list[str] = []
    real: dict[str, Any] = {name: getattr(os, name) for name in names}

    def counted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & _CREATES:
                return real[name](*arguments, **options)
            made.append(name)
            if len(made) >= step:
                if name == "pwrite":
                    descriptor, data, place = arguments
                    real[name](descriptor, memoryview(data)[: len(data) // 2], place)
                fail()
            return real[name](*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, counted(name))
        yield made


@pytest.fixture
def full_disk() -> Callable[[int], Any]:
    """``with full_disk(3) as calls:`` the third call that needs space, and all after it, fail."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda step: _failing(step, fail, _CHANGES[:-2])
