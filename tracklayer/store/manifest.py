"""What a stored tree is: a list of files with their digests, and where it came from."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tracklayer.errors import StoreError

DIGEST = r"^sha256:[0-9a-f]{64}$"


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
        raise ValueError("a path of a manifest stays inside its tree")
    return path


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Blob(_Record):
    """Content in the store. ``size`` in bytes."""

    digest: str = Field(pattern=DIGEST)
    size: int = Field(ge=0)


class File(Blob):
    """One file of a tree; ``path`` is relative to it, with forward slashes."""

    path: Annotated[str, AfterValidator(_inside)]
    executable: bool = False


class Manifest(_Record):
    """A tree. Its digest covers everything that is in it, so it names exactly this document.

    ``origin`` says where the files came from: handle and pinned revision of a source, for example.
    """

    files: tuple[File, ...]
    origin: dict[str, str] = {}

    @property
    def document(self) -> bytes:
        """The bytes that are stored; the same for equal manifests."""
        return (
            self.model_copy(update={"origin": dict(sorted(self.origin.items()))})
            .model_dump_json()
            .encode()
        )

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the document."""
        return f"sha256:{hashlib.sha256(self.document).hexdigest()}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def hash_file(path: Path) -> Blob:
    """Digest and size of a file.

    :raises OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return Blob(digest=f"sha256:{digest.hexdigest()}", size=stream.tell())


def walk(folder: Path) -> Iterator[tuple[str, Path, bool]]:
    """The files of a tree in the order of their names: relative path, where it lies, executable.

    A link to a file of the same tree counts as that file. Empty folders are left out.

    :raises StoreError: a link that leaves the tree or leads to a folder, a device, a name that is
        not UTF-8.
    """
    root = folder.resolve()
    found: list[tuple[str, Path, bool]] = []
    for parent, folders, names in os.walk(root, onerror=_raise):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise _refused(Path(parent, name), root, "is a link to a folder")
        for name in names:
            path = Path(parent, name)
            real = path.resolve()
            if not real.is_relative_to(root):
                raise _refused(path, root, "is a link that leaves the folder")
            if not real.exists():
                raise _refused(path, root, "is a link to nothing")
            mode = real.stat().st_mode
            if not stat.S_ISREG(mode):
                raise _refused(path, root, "is not a plain file")
            relative = path.relative_to(root).as_posix()
            try:
                relative.encode()
            except UnicodeEncodeError:
                raise _refused(path, root, "has a name that is not UTF-8") from None
            found.append((relative, real, bool(mode & stat.S_IXUSR)))
    yield from sorted(found)


def scan(folder: Path) -> tuple[File, ...]:
    """The files of a tree with their digests; reads all of it.

    :raises StoreError: see :func:`walk`.
    :raises OSError: a file cannot be read.
    """
    return tuple(
        File(path=path, executable=executable, **hash_file(real).model_dump())
        for path, real, executable in walk(folder)
    )


def _raise(error: OSError) -> None:
    raise error


def _refused(path: Path, root: Path, why: str) -> StoreError:
    return StoreError(
        f"{os.fsencode(path.relative_to(root))!r} {why}"[1:],
        hint="Only plain files, and links to files of the same folder, can be stored.",
    )
