"""The git repository of projects: read, save, history."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tracklayer.errors import ProjectError, SpecError
from tracklayer.projects.check import SPEC_FILE, check_repository
from tracklayer.projects.files import Entry, checked, entries_of
from tracklayer.projects.git import Git, redact
from tracklayer.projects.mirror import Mirror, make_folder
from tracklayer.spec import After, Spec, loads

_TRIES = 8


@dataclass(frozen=True, slots=True)
class Saved:
    """The outcome of a save; ``changed`` is false if the repository had the same files already."""

    commit: str
    changed: bool
    project: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a project's history. ``author`` is ``Name <address>``, ``time`` in UTC."""

    id: str
    author: str
    time: datetime
    message: str


class Repository:
    """One branch of a git repository with a folder a project.

    :param url: path of a bare repository, or anything that git calls a remote.
    :param branch: the branch that is live.
    :param cache: folder of a private mirror. It may be deleted at any time.
    """

    def __init__(self, url: str, *, branch: str = "main", cache: Path) -> None:
        if url.startswith("-") or not re.fullmatch(r"\w[\w./-]*", branch):
            raise ProjectError(f"Not a repository and a branch: {redact(url)!r}, {branch!r}.")
        # As git-clone(1) tells them apart: a colon before the first slash is a remote.
        path = url.removeprefix("file://")
        self._path = None if re.match("[^/]+:", path) else Path(path).expanduser().absolute()
        self._branch = f"refs/heads/{branch}"
        self._mirror = Mirror(str(self._path or url), self._branch, cache.absolute())

    def create(self) -> None:
        """Make the bare repository, if it is to be on this machine and is not there yet.

        :raises ProjectError: the folder has something else in it, or cannot be written.
        """
        path = self._path
        if path is None or (path / "objects").exists() or (path / ".git").exists():
            return
        unfinished = {
            "HEAD",
            "HEAD.lock",
            "config",
            "config.lock",
            "refs",
        }  # by one that was killed
        if path.exists() and not (path.is_dir() and {p.name for p in path.iterdir()} <= unfinished):
            message = f"{path} is neither empty nor a git repository."
            raise ProjectError(message, hint="Choose another folder for the repository.")
        make_folder(path)
        name = self._branch.removeprefix("refs/heads/")
        Git(path).run("init", "--quiet", "--bare", "--template=", f"--initial-branch={name}")

    def projects(self, commit: str | None = None) -> dict[str, str]:
        """Project folder to the text of its ``tracklayer.yaml``, in the order of their names.

        :param commit: of this commit; default: of the newest.
        :raises ProjectError: the repository cannot be reached, or has no such commit.
        """
        head = self._mirror.commit(commit)
        if head is None:
            return {}
        folders = self._mirror.folders(head)
        # By the name of the content: that of a folder may have anything in it, a line break too.
        texts = self._mirror.read([f"{tree}:{SPEC_FILE}" for tree in folders.values()])
        return {name: text for name, text in zip(folders, texts, strict=True) if text is not None}

    def contents(self, commit: str) -> dict[str, str]:
        """Project folder to the git object name of its content: equal names, equal files.

        :raises ProjectError: the repository cannot be reached, or has no such commit.
        """
        head = self._mirror.commit(commit)
        return self._mirror.folders(head) if head else {}

    def history(self, project: str) -> list[Commit]:
        """The commits that changed a project, newest first.

        :raises ProjectError: there never was such a project, or the repository cannot be reached.
        """
        head = self._mirror.fetch()
        form = "%H%x00%an <%ae>%x00%aI%x00%B"
        fields = self._mirror.log(head, project, form) if head else []
        if not fields:
            raise self._unknown(project, head)
        return [
            Commit(name, author, datetime.fromisoformat(when).astimezone(UTC), message.strip())
            for name, author, when, message in zip(*(iter(fields),) * 4, strict=True)
        ]

    def includes(self, version: str, commit: str) -> bool:
        """Whether a commit is the version itself or in its history.

        :raises ProjectError: the repository has no such commits, or cannot be reached.
        """
        for name in (version, commit):
            self._mirror.commit(name)
        asked = ("rev-list", "--count", "--end-of-options", commit, f"^{version}")
        return int(self._mirror.git.run(*asked)) == 0

    def last_valid(
        self,
        project: str,
        commit: str | None = None,
        accept: Callable[[Spec], bool] = lambda _spec: True,
    ) -> tuple[str, str] | None:
        """The newest commit of a project whose spec is valid among the others, and its text.

        :param commit: look no later than at this one; default: the newest.
        :param accept: what else a spec has to be.
        :raises ProjectError: the repository cannot be reached, or has no such commit.
        """
        head = self._mirror.commit(commit)
        commits = self._mirror.log(head, project, "%H") if head else []
        for start in range(0, len(commits), 20):
            some = commits[start : start + 20]
            texts = self._mirror.read([f"{found}:{project}/{SPEC_FILE}" for found in some])
            for found, text in zip(some, texts, strict=True):
                if text is None:
                    continue
                spec = check_repository(self.projects(found)).get(project)
                if isinstance(spec, Spec) and accept(spec):
                    return found, text
        return None

    def save(self, folder: Path, *, message: str | None = None, author: str | None = None) -> Saved:
        """Commit a project folder, in place of what the repository has under its name.

        :param message: of the commit; default: what was saved.
        :param author: ``Name <address>``; default: who runs this.
        :raises SpecError: its spec is wrong, by itself or among the other projects.
        :raises ProjectError: it has a file that cannot be saved, or the repository refused it.
        """
        folder = folder.absolute()
        if not folder.is_dir():
            raise ProjectError(f"There is no folder {folder}.")
        self._mirror.prepare()
        entries = entries_of(folder, self._mirror.git)
        return self._save(entries, str(folder / SPEC_FILE), message, author)

    def save_files(
        self,
        name: str,
        files: Iterable[Entry],
        *,
        message: str | None = None,
        author: str | None = None,
    ) -> Saved:
        """Save a project from memory.

        :raises SpecError: as ``save``; also if the spec has another name than ``name``.
        :raises ProjectError: as ``save``.
        """
        entries = checked(sorted(files, key=lambda entry: entry.path))
        return self._save(entries, f"{name}/{SPEC_FILE}", message, author, name=name)

    def remove(self, project: str, *, author: str | None = None) -> str:
        """Delete a project's folder from the newest version; its history stays.

        :returns: the commit that deletes it.
        :raises ProjectError: there is no such project, or the repository refused.
        """
        for head in self._heads():
            if head is None or project not in self.projects(head):
                raise self._unknown(project, head)
            if commit := self._mirror.publish(head, project, [], f"Remove {project}", author):
                return commit
        raise self._contended()

    def _save(
        self,
        entries: list[Entry],
        file: str,
        message: str | None,
        author: str | None,
        *,
        name: str | None = None,
    ) -> Saved:
        found = next((e for e in entries if e.path == SPEC_FILE and e.mode != "120000"), None)
        if found is None:
            hint = f"A project needs a {SPEC_FILE}, and one that `.gitignore` does not name."
            raise ProjectError(f"There is no file {file}.", hint=hint)
        content = b"".join(found.read())
        spec = loads(content, file)
        if name not in (None, spec.name):
            wrong = f"`name` is {spec.name}, but the project is {name}"
            raise SpecError([spec.positions.problem(("name",), wrong)])
        message = message or f"Save {spec.name}"
        for head in self._heads():
            self._check_among_others(spec, content.decode(), head)
            if commit := self._mirror.publish(head, spec.name, entries, message, author):
                return Saved(commit, commit != head, spec.name)
        raise self._contended()

    def _check_among_others(self, spec: Spec, text: str, head: str | None) -> None:
        if isinstance(spec.schedule, After):  # only then can others make it wrong
            others = self.projects(head) if head else {}
            found = check_repository(others | {spec.name: text})[spec.name]
            if not isinstance(found, Spec):
                raise SpecError(found)

    def _heads(self) -> Iterator[str | None]:
        """The newest commit, again after each time that somebody else was faster."""
        for attempt in range(_TRIES):
            yield self._mirror.fetch()
            time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311

    def _contended(self) -> ProjectError:
        message = f"Others saved into {self._mirror.address} at the same time, {_TRIES} times."
        return ProjectError(message, hint="Save again.")

    def _unknown(self, project: str, head: str | None) -> ProjectError:
        known = ", ".join(self.projects(head)) if head else ""
        hint = f"Known: {known}." if known else "It has no project yet."
        return ProjectError(f"The repository has no project {project}.", hint=hint)
