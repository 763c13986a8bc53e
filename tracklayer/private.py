"""Folders for what is decrypted: owner-only, in memory where it fits, gone with its run.

A run has one folder a part, found again by its name; anything else takes a temporary one. Whoever
is killed leaves what he had to the next sweep (``tracklayer.platform.sweep``).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from tracklayer.errors import PlatformError
from tracklayer.settings import Settings, settings

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, owner-only
_SHARE = 4
"""Memory takes at most one part in so many of what is free: the job needs some too."""
UNKNOWN = 256 << 20
"""Bytes that are reckoned with where nobody knows the size, as of what a job will write."""


def roots(here: Settings | None = None) -> list[Path]:
    """Where private folders may lie, the best place first.

    :param here: default: the settings of this process.
    """
    here = here or settings()
    mark = f"tracklayer-{os.getuid()}-{hashlib.sha256(os.fsencode(here.home)).hexdigest()[:10]}"
    if here.private is not None:
        return [here.private.expanduser().absolute() / mark]
    disk = here.home / "private"
    return [_MEMORY / mark, disk] if _is_tmpfs(_MEMORY) else [disk]


def run_name(run: str) -> str:
    """The name of a run as a folder. Any file system takes it, and no two runs share one."""
    readable = re.sub(r"[^A-Za-z0-9_.-]", "-", run)[:80].lstrip(".")
    return f"{readable}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def run_folder(project: str, run: str, part: str, *, size: int = UNKNOWN) -> Path:
    """The folder of a part of a run, such as its inputs: where it is, or where it is to be made.

    :param size: bytes that will lie there.
    :raises PlatformError: no folder for it can be made.
    """
    below = Path("runs", project, run_name(run), part)
    for root in roots():
        if (root / below).exists():
            return root / below
    folder = _root(size) / below
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def temporary(size: int = UNKNOWN) -> Iterator[Path]:
    """A folder for the time of a ``with`` block.

    :param size: bytes that will lie there.
    :raises PlatformError: it cannot be made.
    """
    parent = _root(size) / "temporary"
    parent.mkdir(exist_ok=True)
    with ExitStack() as held:
        with ExitStack() as making:
            making.enter_context(_locked(parent, fcntl.LOCK_SH))  # a sweep waits
            folder = Path(tempfile.mkdtemp(dir=parent))
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            held.enter_context(_locked(folder, fcntl.LOCK_EX))
        yield folder


def run_folders(project: str = "*", name: str = "*") -> list[Path]:
    """What is held for runs, ``.../runs/<project>/<name>``; a run may have one in each root."""
    return [folder for root in roots() for folder in sorted(root.glob(f"runs/{project}/{name}"))]


def remove_run(project: str, name: str) -> None:
    """Remove all that is held for a run.

    :param name: of :func:`run_name`.
    """
    for folder in run_folders(project, name):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another run of the project has something there
            folder.parent.rmdir()


def sweep_temporary() -> None:
    """Remove the temporary folders of processes that are no more."""
    for root in roots():
        parent = root / "temporary"
        if not parent.exists():
            continue
        with _locked(parent, fcntl.LOCK_EX):
            for folder in parent.iterdir():
                with suppress(BlockingIOError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold the lock of a folder; the kernel gives it back when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _root(size: int) -> Path:
    """The first root that has room enough; the last one in any case."""
    places = [root for root in roots() if _made(root)]
    if not places:
        raise PlatformError(
            f"no private folder can be made: {', '.join(map(str, roots()))}",
            hint="Set TRACKLAYER_PRIVATE to a folder of your own.",
        )
    for root in places:
        free = shutil.disk_usage(root).free
        if root.parent == _MEMORY:
            free = min(free, psutil.virtual_memory().available) // _SHARE
        if size <= free:
            return root
    return places[-1]


def _made(root: Path) -> bool:
    """Whether a root is there and nobody else's."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        root.chmod(0o700)  # refused for a folder of somebody else's
    except OSError:
        return False
    return not root.is_symlink() and root.stat().st_uid == os.getuid()


def _is_tmpfs(folder: Path) -> bool:
    """Whether a folder lies in memory and can be written."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    mounted = any(line.split()[1:3] == [str(folder), "tmpfs"] for line in mounts)
    return mounted and os.access(folder, os.W_OK)
