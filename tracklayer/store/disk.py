"""Files that are whole or absent, durable, and gone with whoever did not finish them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock

from tracklayer.errors import StoreError
from tracklayer.store.locks import shared, try_lock

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_STALE = 24 * 3600.0  # seconds after which a folder without a lock has no living owner
_SPARE = 16
_spare: defaultdict[int, list[memoryview]] = defaultdict(list)
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """The folder of a store, and the files in it that are not finished."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"
        self._swept = False
        self._counting, self._sessions, self._shared = Lock(), 0, ExitStack()

    def folder(self, name: str = "") -> Path:
        """A folder of the store, or its root, made where it is missing."""
        folder = self.root / name
        with suppress(FileExistsError):
            try:
                folder.mkdir(mode=0o700)
            except FileNotFoundError:
                self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
                folder.mkdir(mode=0o700)
        return folder

    @contextmanager
    def session(self) -> Iterator[None]:
        """What is stored inside is not collected before the end. May be nested, also by threads:
        the lock is taken by the first and given back by the last."""
        with self._counting, explained(self.root):
            if not self._sessions:
                self.folder()
                self._shared.enter_context(shared(self.root / "lock"))
            self._sessions += 1
        try:
            yield
        finally:
            with self._counting:
                self._sessions -= 1
                if not self._sessions:
                    self._shared.close()

    @contextmanager
    def temporary(self) -> Iterator[tuple[Path, int]]:
        """A new file on the file system of the store, open for writing; gone at the end if it was
        not placed."""
        with explained(self.root):
            path, descriptor = self._new_temporary()
        try:
            yield path, descriptor
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of one's own on the file system of the store, gone at the end."""
        with self.temporary() as (lock, _):
            folder = lock.with_suffix(".d")
            with explained(self.root):
                folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def write_small(self, target: Path, data: bytes) -> None:
        """Write a whole small file of the store in one step."""
        with self.temporary() as (fresh, descriptor), explained(self.root):
            write_all(descriptor, data, 0)
            os.fsync(descriptor)
            place(fresh, target)

    def sweep(self) -> None:
        """Remove what killed processes were writing."""
        for path in self.folder("tmp").iterdir():
            with suppress(FileNotFoundError):
                if path.is_dir():
                    lock = path.with_suffix("")
                    orphan = lock == path or not lock.exists()
                    if orphan and path.stat().st_mtime < time.time() - _STALE:
                        shutil.rmtree(path, ignore_errors=True)
                    continue
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if try_lock(descriptor):
                        shutil.rmtree(path.with_suffix(".d"), ignore_errors=True)
                        path.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)

    def _new_temporary(self) -> tuple[Path, int]:
        """Its owner holds its lock, so that what a killed one left can be told and swept."""
        if not self._swept:
            self._swept = True
            self.sweep()
        while True:
            try:
                descriptor, name = tempfile.mkstemp(dir=self._tmp, prefix="")
            except FileNotFoundError:
                self.folder("tmp")
                continue
            if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
                return Path(name), descriptor
            os.close(descriptor)  # swept between the two


@contextmanager
def becoming(into: Path) -> Iterator[Path]:
    """A private folder that takes the name ``into`` at the end, if nothing fails; an empty folder
    of that name gives way. What killed processes left of theirs is removed.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{into.name}."
    for left in into.parent.iterdir():
        if left.name.startswith(prefix):
            with suppress(OSError), _locked_folder(left):
                shutil.rmtree(left)
    while True:
        fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=into.parent))
        with suppress(FileNotFoundError, BlockingIOError), ExitStack() as stack:  # being swept
            stack.enter_context(_locked_folder(fresh))
            stack.callback(shutil.rmtree, fresh, ignore_errors=True)
            lock = stack.pop_all()
            break
    with lock:
        yield fresh
        fresh.chmod(0o755)
        fresh.rename(into)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder's lock.

    :raises OSError: it is gone, or another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()
        yield
    finally:
        os.close(descriptor)


def place(fresh: Path, target: Path) -> None:
    """Give a durable file its name, durably, in one step for every reader."""
    folder = target.parent
    try:
        fresh.rename(target)
    except FileNotFoundError:
        make_folder(folder)
        fresh.rename(target)
    sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        sync_folder(folder.parent)


def sync(root: Path) -> None:
    """Make all that was written to the file system of a folder durable, with one call: for a
    thousand small changes that is a hundred times faster than one call each."""
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(root))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_all(descriptor: int, into: memoryview, at: int) -> None:
    """Fill ``into`` from a place of the file.

    :raises EOFError: the file ends before.
    """
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], at + done)
        if not count:
            raise EOFError(f"the file ends at byte {at + done}")
        done += count


def write_all(descriptor: int, data: bytes | bytearray | memoryview, at: int) -> None:
    """Write all of ``data`` at a place of the file."""
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], at + done)


def blank(size: int) -> memoryview:
    """Memory for a part of a file. Pages that are not used take no room and no time: a
    ``bytearray`` writes zeros to all of them, which for a small file is most of the work."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, max(1, size), flags=private))[:size]


def borrow(size: int) -> memoryview:
    """Like :func:`blank`, or what somebody gave back, whatever is in it: to touch new pages takes
    longer than to decrypt into them."""
    try:
        return _spare[size].pop()
    except IndexError:
        return blank(size)


def give_back(memory: memoryview) -> None:
    """To be called by who borrowed it, and does not use it any more."""
    if len(spare := _spare[len(memory)]) < _SPARE:
        spare.append(memory)


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what the file system says into a :class:`StoreError` with advice."""
    try:
        yield
    except OSError as error:
        where = error.filename or root
        hint = None
        if error.errno in _FULL:
            hint = f"Free some space on the file system of {root}."
        elif error.errno in _REFUSED:
            hint = f"The user {os.getuid()} must be able to read and write {root}."
        raise StoreError(f"{where}: {error.strerror}", hint=hint) from error
