"""``path:data/train.csv``: a file or a folder of the project itself."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from tracklayer.errors import SourceError, StoreError
from tracklayer.sources.addresses import without_login
from tracklayer.sources.protocol import Context, Local
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
                f"{without_login(handle)!r} must name something inside the project folder",
                hint="Write the path relative to the folder of tracklayer.yaml, without '..'.",
            )
        return cls(str(path))

    @property
    def pinned(self) -> None:
        """What lies in a project may change."""
        return

    def pin(self, context: Context) -> str:
        """``sha256:<hex>`` over the names and the content of all files."""
        return _digest(_listing(self._locate(context.project), self._name))

    def key(self, revision: str) -> str:
        """Path and content; the project does not matter."""
        return f"path:{self.relative}@{revision}"

    def files(self, revision: str, context: Context) -> Iterable[Local]:
        """The files where they lie, if they are still those that were pinned."""
        place = self._locate(context.project)
        context.report(f"storing {self.relative}")
        files = _listing(place, self._name)
        if _digest(files) != revision:
            raise SourceError(f"{self.relative} changed while it was being read")
        for file in files:
            where = place / file.path if place.is_dir() else place
            yield Local(file.path, where, file.executable, digest=file.digest)

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


def _listing(place: Path, name: str) -> tuple[File, ...]:
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
    return files


def _digest(files: tuple[File, ...]) -> str:
    listing = "".join(file.model_dump_json() for file in files)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
