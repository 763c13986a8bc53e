"""``path:data/train.csv``: a file or a folder of the project itself."""

from __future__ import annotations

import hashlib
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from tracklayer.errors import SourceError, StoreError
from tracklayer.sources import Progress
from tracklayer.store import File, hash_file, scan


@dataclass(frozen=True)
class PathSource:
    """Something in the project folder; its revision is the digest of what it holds."""

    relative: str

    @classmethod
    def parse(cls, handle: str) -> Self:
        """``path:<relative path>``, which may not lead out of the project."""
        relative = handle.removeprefix("path:")
        path = PurePosixPath(relative)
        if not relative or path.is_absolute() or ".." in path.parts or "\0" in relative:
            raise SourceError(
                f"{handle!r} must name something inside the project folder",
                hint="Write the path relative to the folder of tracklayer.yaml, without '..'.",
            )
        return cls(str(path))

    def pin(self, project: Path) -> str:
        """``sha256:<hex>`` over the names and the content of all files."""
        return _digest(self._locate(project), self._name)

    def key(self, revision: str) -> str:
        """Path and content; the project does not matter."""
        return f"path:{self.relative}@{revision}"

    def download(self, revision: str, into: Path, project: Path, on_progress: Progress) -> None:
        """Copy the files, and check that they are still those that were pinned."""
        place = self._locate(project)
        on_progress(f"storing {self.relative}")
        if place.is_dir():
            shutil.copytree(place, into, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(place, into / self._name)
        if _digest(into, self._name) != revision:
            raise SourceError(f"{self.relative} changed while it was being read")

    @property
    def _name(self) -> str:
        return PurePosixPath(self.relative).name

    def _locate(self, project: Path) -> Path:
        root = project.resolve()
        place = (root / self.relative).resolve()
        if not place.is_relative_to(root):
            raise SourceError(
                f"path:{self.relative} leads out of the project folder through a link",
                hint="Put the data into the project, or name its real source.",
            )
        if not place.exists():
            raise SourceError(
                f"path:{self.relative} does not exist in the project",
                hint=f"Looked for {place}. Is it committed?",
            )
        return place


def _digest(place: Path, name: str) -> str:
    try:
        if place.is_dir():
            files = scan(place)
        else:
            executable = bool(place.stat().st_mode & stat.S_IXUSR)
            files = (File(path=name, executable=executable, **hash_file(place).model_dump()),)
    except StoreError as error:
        raise SourceError(f"path:{name}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise SourceError(f"path:{name} cannot be read: {error.strerror}") from error
    if not files:
        raise SourceError(f"path:{name} is an empty folder")
    listing = "".join(file.model_dump_json() for file in files)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
