"""A private copy of the remote, and the commits that are made in it.

A commit is made by git-fast-import(1): one process, nothing written beside the copy. It is
published by a push that the remote takes only if its branch is still where it was seen
(``--force-with-lease``, git-push(1)).
"""

from __future__ import annotations

import fcntl
import getpass
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracklayer.errors import ProjectError
from tracklayer.projects.files import Entry
from tracklayer.projects.git import Git, GitError, redact

_SEEN = "refs/tracklayer/seen"
_NEXT = "refs/tracklayer/next"
_TIMEOUT = 120.0  # seconds for a command that talks to the remote
_RACE = re.compile(r"stale info|fetch first|non-fast-forward|cannot lock ref|failed to update ref")


class Mirror:
    """One branch of a remote, as seen last.

    :param url: anything that git calls a remote.
    :param branch: full name of the branch, ``refs/heads/main``.
    :param folder: where the copy is kept. It may be deleted at any time.
    """

    def __init__(self, url: str, branch: str, folder: Path) -> None:
        self.address = redact(url)
        self._branch = branch
        self._folder = folder
        self.git = Git(folder, {"remote.tracklayer.url": url})

    def fetch(self) -> str | None:
        """Look at the remote; its newest commit, None if the branch does not exist.

        :raises ProjectError: it cannot be reached.
        """
        refspec = f"+{self._branch}:{_SEEN}"
        with self._locked():
            try:
                options = ("--quiet", "--no-tags", "--no-write-fetch-head")
                self._remote("fetch", *options, "tracklayer", refspec)
            except GitError as error:
                if "couldn't find remote ref" in error.said:
                    return None
                raise
            return self.git.run("rev-parse", _SEEN).decode().strip()

    def commit(self, name: str | None) -> str | None:
        """The full name of a commit; of the newest for None; None if there is none yet.

        :raises ProjectError: there is no such commit, or the remote cannot be reached.
        """
        if name is None:
            return self.fetch()
        query = ("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}")
        self.prepare()
        for look_again in (True, False):
            try:
                return self.git.run(*query).decode().strip()
            except GitError:
                if look_again:
                    self.fetch()
        raise ProjectError(f"The repository {self.address} has no commit {name}.")

    def folders(self, commit: str) -> dict[str, str]:
        """The names of the folders at the root, each with the object name of its content."""
        listed = os.fsdecode(self.git.run("ls-tree", "-z", commit)).split("\0")[:-1]
        entries = (line.partition("\t") for line in listed)
        return {
            name: described.split()[2]
            for described, _, name in entries
            if described.split()[1] == "tree"
        }

    def log(self, commit: str, folder: str, form: str) -> list[str]:
        """The fields of each commit that changed a folder, newest first, in one list.

        :param form: placeholders of git-log(1), separated by ``%x00``.
        """
        path = f":(literal,top){folder}"
        arguments = ("-z", f"--format={form}", "--end-of-options", commit, "--", path)
        output = self.git.run("log", *arguments).decode(errors="replace")
        return output.split("\0")[:-1]

    def read(self, names: list[str]) -> list[str | None]:
        """The texts of many files, named ``<commit>:<path>``; None for one that is not there.

        What is not UTF-8 becomes lone surrogates, which the reader of a spec refuses by place.
        """
        if any("\n" in name for name in names):
            raise ProjectError("A project folder has a line break in its name.")
        asked = os.fsencode("".join(f"{name}\n" for name in names))
        output = self.git.run("cat-file", "--batch", stdin=asked)
        texts: list[str | None] = []
        position = 0
        for _ in names:  # a line `<object> <type> <size>`, the content, a line break
            end = output.index(b"\n", position)
            *_, kind, size = output[position:end].split()
            position = end + 1
            if size == b"missing":
                texts.append(None)
                continue
            content = output[position : position + int(size)]
            position += int(size) + 1
            found = content.decode(errors="surrogateescape") if kind == b"blob" else None
            texts.append(found)
        return texts

    def publish(
        self, seen: str | None, folder: str, entries: list[Entry], message: str, author: str | None
    ) -> str | None:
        """Commit the entries in place of a folder on top of ``seen``, and push that.

        :param entries: the files; none of them deletes the folder.
        :param author: ``Name <address>``; default: who runs this.
        :returns: the new commit; ``seen`` itself if that has the same files already; None if the
            remote has moved on meanwhile.
        :raises ProjectError: the remote refused it or cannot be reached.
        """
        commands = _commands(seen, folder, entries, message, author or _login())
        with self._locked():
            self.git.run("fast-import", "--quiet", "--force", stdin=commands)
            asked = [_NEXT, f"{_NEXT}^{{tree}}", *([f"{seen}^{{tree}}"] if seen else [])]
            commit, *trees = self.git.run("rev-parse", *asked).decode().split()
        if len(set(trees)) < len(trees):
            return seen
        lease = f"--force-with-lease={self._branch}:{seen or ''}"
        try:
            self._remote("push", "--quiet", lease, "tracklayer", f"{commit}:{self._branch}")
        except GitError as error:
            if _RACE.search(error.said):
                return None
            raise
        return commit

    def prepare(self) -> None:
        """Make the folder of the copy, if it is not there."""
        with self._locked():
            pass

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer of the copy at a time. What a killed one left locked is unlocked."""
        make_folder(self._folder)
        with (self._folder / "tracklayer.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not (self._folder / "objects" / "info").exists():  # what git-init(1) makes last
                self.git.run("init", "--quiet", "--bare", "--template=")
            for left in (self._folder / "refs" / "tracklayer").glob("*.lock"):
                left.unlink()
            yield

    def _remote(self, *arguments: str) -> None:
        try:
            self.git.run(*arguments, timeout=_TIMEOUT)
        except GitError as error:
            error.message = f"The repository {self.address}: {error.message}"
            error.hint = "Check its address, the network and your rights to it."
            raise


def make_folder(path: Path) -> None:
    """Make a folder for its owner alone.

    :raises ProjectError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(f"{path} cannot be made: {error.strerror}.") from None


def _commands(
    seen: str | None, folder: str, entries: list[Entry], message: str, author: str
) -> Iterator[bytes]:
    """What git-fast-import(1) reads for one commit."""
    if not (who := re.fullmatch(r"([^<>\n]+?)\s*(?:<([^<>\n]*)>)?", author.strip())):
        raise ProjectError(f"{author!r} is no author.", hint="Write it as `Name <address>`.")
    person = f"{who[1]} <{who[2] or f'{_login()}@localhost'}> {int(time.time())} +0000"
    text = message.encode()
    yield f"reset {_NEXT}\ncommit {_NEXT}\n".encode()
    yield f"author {person}\ncommitter {person}\ndata {len(text)}\n".encode() + text + b"\n"
    if seen:
        yield f"from {seen}\n".encode()
    yield f"D {folder}\n".encode()
    for entry in entries:
        path = os.fsencode(f"{folder}/{entry.path}")
        yield b"M %b inline %b\ndata %d\n" % (entry.mode.encode(), path, entry.size)
        yield from entry.read()
        yield b"\n"


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"uid-{os.getuid()}"
