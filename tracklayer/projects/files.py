"""The files of a project folder that belong into the repository, and the refusal of the others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tracklayer.errors import ProjectError
from tracklayer.projects.git import Git

MIB = 1024**2
MAX_FILE = 50 * MIB
MAX_TOTAL = 200 * MIB
MAX_FILES = 10_000
# Never part of a project, whatever its .gitignore says.
_EXCLUDED = ("__pycache__/", "*.pyc", ".venv/", ".ipynb_checkpoints/", ".DS_Store")
_USE_A_SOURCE = "Keep data outside of the folder and name it under `sources`, or add it to"
_HINT = f"{_USE_A_SOURCE} `.gitignore`."


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a project as git keeps it.

    :param path: from the project's folder, with ``/``.
    :param mode: ``100644``, ``100755`` (executable) or ``120000`` (symbolic link).
    :param content: the bytes themselves, or the file that has them.
    """

    path: str
    mode: str
    content: bytes | Path
    size: int

    def read(self) -> Iterator[bytes]:
        """The content in parts.

        :raises ProjectError: the file changed in size meanwhile.
        """
        if isinstance(self.content, bytes):
            yield self.content
            return
        seen = 0
        with self.content.open("rb") as stream:
            while part := stream.read(MIB):
                seen += len(part)
                yield part
        if seen != self.size:
            raise ProjectError(f"{self.path} changed while it was saved.", hint="Save again.")


def entries_of(folder: Path, git: Git) -> list[Entry]:
    """What of a folder is saved: all files but those that its ``.gitignore`` names.

    :param git: any git folder; it only reads the ignore rules.
    :raises ProjectError: a file that must not be saved; nothing has been saved then.
    """
    excluded = [f"--exclude={pattern}" for pattern in _EXCLUDED]
    arguments = ("ls-files", "-z", "--others", "--exclude-standard", *excluded)
    listed = os.fsdecode(git.run(*arguments, work_tree=folder)).split("\0")[:-1]
    return checked([_entry(folder, path) for path in sorted(listed)])


def entry_from(path: str, content: bytes, *, executable: bool = False) -> Entry:
    """A plain file from memory."""
    return Entry(path, "100755" if executable else "100644", content, len(content))


def checked(entries: list[Entry]) -> list[Entry]:
    """The entries themselves, if all of them may be saved.

    :raises ProjectError: a path that leads out of the folder, a size over a limit.
    """
    for entry in entries:
        parts = PurePosixPath(entry.path).parts
        inner = not entry.path.startswith("/") and "//" not in entry.path
        if not parts or not inner or any(_forbidden(part) for part in entry.path.split("/")):
            raise ProjectError(f"{entry.path!r} is not a path that a project may have.")
        if entry.size > MAX_FILE:
            size = f"{entry.size / MIB:.0f} MiB"
            message = f"{entry.path} has {size}; a file may have {MAX_FILE // MIB} MiB at most."
            raise ProjectError(message, hint=_HINT)
    if len(entries) > MAX_FILES:
        message = f"The project has {len(entries)} files; it may have {MAX_FILES} at most."
        raise ProjectError(message, hint=_HINT)
    if (total := sum(entry.size for entry in entries)) > MAX_TOTAL:
        message = f"The project has {total / MIB:.0f} MiB; it may have {MAX_TOTAL // MIB} at most."
        raise ProjectError(message, hint=_HINT)
    return entries


def _forbidden(part: str) -> bool:
    """Names that leave the folder, that git keeps for itself, or that it could not write back."""
    return part.lower() in ("", ".", "..", ".git") or any(char in part for char in "\n\r\0\\")


def _entry(folder: Path, path: str) -> Entry:
    if path.endswith("/"):
        message = f"{path} is a git repository of its own; a project cannot contain one."
        hint = "Name it under `sources` as git+https://…@<ref>, or add it to `.gitignore`."
        raise ProjectError(message, hint=hint)
    full = folder / path
    try:
        found = full.lstat()
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(_link(folder, full, path))
            return Entry(path, "120000", target, len(target))
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}.") from None
    if not os.access(full, os.R_OK):
        raise ProjectError(f"{path} cannot be read: you lack the permission.")
    mode = "100755" if found.st_mode & stat.S_IXUSR else "100644"
    return Entry(path, mode, full, found.st_size)


def _link(folder: Path, link: Path, path: str) -> Path:
    """Where a symbolic link points, if that is a file of the same project."""
    target = link.readlink()
    aim = Path(os.path.normpath(link.parent / target))
    inside = link.resolve().is_relative_to(folder.resolve()) and aim.is_relative_to(folder)
    if target.is_absolute() or not inside or not link.exists():
        message = f"{path} is a symbolic link to {target}, which is no file of the project."
        raise ProjectError(message, hint="Copy the file, or name it under `sources`.")
    return target
