"""A project folder as one archive, to be sent to the platform."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from tracklayer.errors import ProjectError


def pack(folder: Path) -> bytes:
    """The files of a project as a tar.gz; those that its ``.gitignore`` names stay out.

    :raises ProjectError: a file that must not be saved, or there is no git.
    """
    from tracklayer.projects.files import entries_of
    from tracklayer.projects.git import Git

    folder = folder.absolute()
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="tracklayer-") as scratch:
        git = Git(Path(scratch))  # only to read the ignore rules as git does
        git.run("init", "--quiet", "--bare")
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3) as archive:
            for entry in entries_of(folder, git):
                content = _content(folder / entry.path)
                member = tarfile.TarInfo(entry.path)
                member.size = len(content)
                member.mode = (folder / entry.path).stat().st_mode & 0o777
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _content(path: Path) -> bytes:
    # A link inside the project was found to lead to something inside; it is sent as what it means.
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}.") from None
