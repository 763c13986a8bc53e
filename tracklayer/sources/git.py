"""``git+https://host/repository.git@ref#subdirectory=path``: the files of a commit."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import urlsplit

from tracklayer.errors import SourceError
from tracklayer.sources import Progress

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_SECONDS = 3600
_EMPTY = Path(os.devnull)


@dataclass(frozen=True)
class GitSource:
    """A commit of a repository, or the commit that a branch or a tag means now.

    Git runs with one protocol allowed, without hooks, submodules, prompts and large-file filters.
    """

    url: str
    ref: str
    subdirectory: str = ""

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``git+https://...@ref`` or ``git+file:///...@ref``, with ``#subdirectory=`` if wanted."""
        address, _, fragment = handle.removeprefix("git+").partition("#")
        url, at, ref = address.rpartition("@")
        parts = urlsplit(url)
        if not at or "/" not in parts.path.rstrip("/") or ref.endswith((".lock", "/", ".")):
            raise _malformed(handle, "needs a repository and, after an @, a commit, tag or branch")
        if not _REF.fullmatch(ref) or ".." in ref:
            raise _malformed(handle, f"has a ref that git does not accept: {ref!r}")
        if "@" in parts.netloc:
            raise SourceError(
                f"git+{parts.scheme}://{parts.hostname}{parts.path} carries a user or a password",
                hint="A handle must not hold secrets; git's credential helpers hold them.",
            )
        if (parts.scheme == "file") == bool(parts.netloc) or re.search(r"[\x00-\x20?]", url):
            raise _malformed(handle, "is not the address of a repository")
        name, _, folder = fragment.partition("=")
        path = PurePosixPath(folder)
        if fragment and (
            name != "subdirectory" or not folder or path.is_absolute() or ".." in path.parts
        ):
            raise _malformed(handle, "may have #subdirectory=<folder of the repository> only")
        return cls(url, ref, str(path) if folder else "")

    def pin(self, project: Path) -> str:  # noqa: ARG002 - a repository is not of the project
        """The commit. Asks the repository, unless the handle names a commit."""
        if _COMMIT.fullmatch(self.ref):
            return self.ref
        asked = [f"refs/tags/{self.ref}", f"refs/tags/{self.ref}^{{}}", f"refs/heads/{self.ref}"]
        if self.ref.startswith("refs/"):
            asked = [self.ref, f"{self.ref}^{{}}"]
        answer = self._git("ls-remote", "--", self.url, *asked)
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
        """Repository, commit and folder. The repository too: not everybody may read each."""
        return f"git+{self.url}@{revision}#{self.subdirectory}"

    def download(self, revision: str, into: Path, project: Path, on_progress: Progress) -> None:  # noqa: ARG002
        """Fetch the commit alone if the server gives it, else all branches and tags."""
        bare = into.parent / "repository.git"
        self._git("init", "--quiet", "--bare", "--template=", "--", str(bare))
        on_progress(f"fetching {revision[:12]} of {self.url}")
        fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
        ]
        try:
            self._git(*fetch, "--depth=1", "--", self.url, revision, at=bare)
        except SourceError:
            on_progress("the server does not give a single commit; fetching all branches and tags")
            everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            self._git(*fetch, "--", self.url, *everything, at=bare)
        tree = f"{revision}^{{commit}}:{self.subdirectory}"
        try:
            self._git("read-tree", tree, at=bare)
        except SourceError as error:
            what = f"folder {self.subdirectory} in" if self.subdirectory else "commit"
            raise SourceError(f"{self.url} has no {what} {revision}") from error
        # Byte for byte what was committed: no line ends, keywords or filters of this machine.
        attributes = bare / "info" / "attributes"
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text("* -text -eol -filter -ident -working-tree-encoding\n")
        self._git(f"--work-tree={into}", "checkout-index", "--all", at=bare)
        if any(
            line.startswith("160000") for line in self._git("ls-files", "-s", at=bare).split("\n")
        ):
            on_progress("the repository has submodules; they are not fetched")

    def _git(self, *arguments: str, at: Path | None = None) -> str:
        protocol = urlsplit(self.url).scheme
        command = ["git", *([f"--git-dir={at}"] if at else [])]
        for setting in (
            f"core.hooksPath={_EMPTY}",
            "core.fsmonitor=false",
            "fetch.fsckObjects=true",
            "submodule.recurse=false",
            "http.lowSpeedLimit=1000",
            "http.lowSpeedTime=60",
        ):
            command += ["-c", setting]
        kept = ("GIT_SSL_", "GIT_CONFIG_", "GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR")
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or name.startswith(kept)
        } | {
            "GIT_ALLOW_PROTOCOL": protocol,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C",
        }
        try:
            done = subprocess.run(
                [*command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise SourceError("there is no git on the PATH", hint="Install git.") from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"git took longer than {_SECONDS} s on {self.url}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-2000:]
            raise SourceError(f"git {arguments[0]} failed for {self.url}: {said}", hint=_hint(said))
        return done.stdout.decode(errors="replace")


def _hint(said: str) -> str | None:
    if "could not read Username" in said or "Authentication failed" in said:
        return "The repository wants a login, or does not exist: set up git's credential helper."
    if "does not appear to be a git repository" in said or "not found" in said:
        return "Is the address right?"
    return None


def _malformed(handle: str, why: str) -> SourceError:
    shown = re.sub(r"//[^/@]*:[^/@]*@", "//", handle)
    return SourceError(
        f"{shown!r} {why}",
        hint="Write git+https://host/repository.git@<commit, tag or branch>"
        "[#subdirectory=<folder>].",
    )
