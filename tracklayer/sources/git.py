"""``git+https://host/repository.git@ref#subdirectory=path&lfs=true``: the files of a commit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import urlsplit

from tracklayer.errors import SourceError
from tracklayer.sources import Context, Local, Remote
from tracklayer.sources.addresses import without_login
from tracklayer.sources.git_program import Git
from tracklayer.store.disk import explained
from tracklayer.store.manifest import walk

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class GitSource:
    """A commit of a repository, or the commit that a branch or a tag means now.

    Git runs with one protocol allowed, without hooks, submodules, prompts and filters. Large files
    (LFS) are fetched if the handle says ``lfs=true``; else their pointers are what is stored.
    """

    url: str
    ref: str
    subdirectory: str = ""
    lfs: bool = False

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``git+https://``, ``git+ssh://`` or ``git+file://``, then ``@ref`` and the fragment."""
        address, _, fragment = handle.removeprefix("git+").partition("#")
        url, at, ref = address.rpartition("@")
        parts = urlsplit(url)
        if not at or "/" not in parts.path.rstrip("/") or ref.endswith((".lock", "/", ".")):
            raise _malformed(handle, "needs a repository and, after an @, a commit, tag or branch")
        if not _REF.fullmatch(ref) or ".." in ref:
            raise _malformed(handle, f"has a ref that git does not accept: {ref!r}")
        user, at, _ = parts.netloc.rpartition("@")
        if at and not (parts.scheme == "ssh" and _NAME.fullmatch(user)):
            raise SourceError(
                f"git+{parts.scheme}://{parts.hostname}{parts.path} carries a user or a password",
                hint="A handle must not hold secrets: an Airflow connection, git's credential "
                "helpers or ssh-agent hold them. git+ssh:// may name a user, without a password.",
            )
        if (parts.scheme == "file") == bool(parts.netloc) or re.search(r"[\x00-\x20?]", url):
            raise _malformed(handle, "is not the address of a repository")
        if parts.scheme == "ssh" and not re.fullmatch(r"[^-].*", parts.hostname or ""):
            raise _malformed(handle, "is not the address of a repository")
        return cls(url, ref, *_choices(handle, fragment))

    @property
    def pinned(self) -> str | None:
        """The commit, if the handle names one."""
        return self.ref if _COMMIT.fullmatch(self.ref) else None

    def pin(self, context: Context) -> str:
        """The commit. Asks the repository, unless the handle names a commit."""
        if self.pinned:
            return self.pinned
        asked = [f"refs/tags/{self.ref}", f"refs/tags/{self.ref}^{{}}", f"refs/heads/{self.ref}"]
        if self.ref.startswith("refs/"):
            asked = [self.ref, f"{self.ref}^{{}}"]
        answer = Git.of(self.url, context)("ls-remote", "--", self.url, *asked)
        lines = (line.split("\t") for line in answer.splitlines())
        found = {name: commit for commit, name in lines}
        if len({name.partition("/")[2].partition("/")[0] for name in found}) > 1:
            raise SourceError(
                f"{self.ref} is both a tag and a branch of {self.url}",
                hint=f"Write @refs/tags/{self.ref} or @refs/heads/{self.ref}.",
            )
        for name in reversed(asked[:2]):  # what an annotated tag points to, not the tag itself
            if name in found:
                return found[name]
        for commit in found.values():
            return commit
        raise SourceError(
            f"{self.url} has no branch or tag {self.ref}",
            hint="A commit is written with all its 40 digits.",
        )

    def key(self, revision: str) -> str:
        """Repository, commit, folder, and whether with large files. The repository too: not
        everybody may read each."""
        lfs = "&lfs=true" if self.lfs else ""
        return f"git+{self.url}@{revision}#{self.subdirectory}{lfs}"

    def files(self, revision: str, context: Context) -> Iterable[Remote | Local]:
        """The files of the commit, and downloads of its large files."""
        from tracklayer.sources.lfs import Pointer, contents, read_pointer

        git = Git.of(self.url, context)
        with explained(context.scratch):
            tree = self._check_out(git, revision, context)
        pointers: list[Pointer] = []
        for path, file, executable in walk(tree):
            if pointer := read_pointer(path, file, executable=executable):
                pointers.append(pointer)
                if self.lfs:
                    continue
            yield Local(path, file, executable)
        if self.lfs:
            yield from contents(git, pointers, context.report)
        elif pointers:
            context.report(
                f"{len(pointers)} large files (LFS) are not fetched, their pointers are: "
                f"{pointers[0].path}, ...; #lfs=true fetches them"
            )

    def _check_out(self, git: Git, revision: str, context: Context) -> Path:
        """Fetch the commit alone if the server gives it, else all branches and tags."""
        bare, tree = context.scratch / "repository.git", context.scratch / "tree"
        tree.mkdir()
        git("init", "--quiet", "--bare", "--template=", "--", str(bare))
        context.report(f"fetching {revision[:12]} of {self.url}")
        fetch = ["--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
        try:
            git("fetch", *fetch, "--depth=1", "--", self.url, revision, at=bare)
        except SourceError:
            context.report("the server gives no single commit; fetching all branches and tags")
            everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            git("fetch", *fetch, "--", self.url, *everything, at=bare)
        try:
            git("read-tree", f"{revision}^{{commit}}:{self.subdirectory}", at=bare)
        except SourceError as error:
            what = f"folder {self.subdirectory} in" if self.subdirectory else "commit"
            raise SourceError(f"{self.url} has no {what} {revision}") from error
        # Byte for byte what was committed: no line ends, keywords or filters of this machine.
        attributes = bare / "info" / "attributes"
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text("* -text -eol -filter -ident -working-tree-encoding\n")
        git(f"--work-tree={tree}", "checkout-index", "--all", at=bare)
        if any(line.startswith("160000") for line in git("ls-files", "-s", at=bare).split("\n")):
            context.report("the repository has submodules; they are not fetched")
        return tree


def _choices(handle: str, fragment: str) -> tuple[str, bool]:
    """What the fragment says: the folder, and whether large files are fetched."""
    folder, lfs = "", "false"
    for choice in fragment.split("&") if fragment else ():
        name, _, value = choice.partition("=")
        path = PurePosixPath(value)
        if name == "subdirectory" and value and not path.is_absolute() and ".." not in path.parts:
            folder = "" if path == PurePosixPath() else str(path)
        elif name == "lfs" and value in ("true", "false"):
            lfs = value
        else:
            raise _malformed(
                handle, "may have #subdirectory=<folder of the repository> and lfs=true only"
            )
    return folder, lfs == "true"


def _malformed(handle: str, why: str) -> SourceError:
    return SourceError(
        f"{without_login(handle)!r} {why}",
        hint="Write git+https://host/repository.git@<commit, tag or branch>"
        "[#subdirectory=<folder>&lfs=true].",
    )
