"""A model folder as artifacts: sent whole, and taken back only if it is the same to the byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from tracklayer.errors import ModelError, TrackingError
from tracklayer.tracking.rest import Rest


def digest_of(folder: Path) -> str:
    """``sha256:<hex>`` of a folder: of the lines ``<sha256 of the file>  <path>``, by path.

    It is what ``sha256sum`` prints for the sorted files, hashed once more.

    :raises ModelError: there is no folder, no file in it, or something that is neither.
    """
    lines = []
    for path in _files(folder):
        with path.open("rb") as stream:
            hashed = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.append(f"{hashed}  {path.relative_to(folder).as_posix()}\n")
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def send(rest: Rest, folder: Path, path: str) -> None:
    """Upload every file of a folder, and see that all of them arrived.

    :raises TrackingError: the server cannot be reached, or has something else in the end.
    """
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in _files(folder)}
    for name in sizes:
        rest.upload(f"{path}/{name}", folder / name)
    if (stored := listed(rest, path)) != sizes:
        odd = sorted(name for name in sizes | stored if sizes.get(name) != stored.get(name))
        raise TrackingError(f"The MLflow server {rest.address} did not store whole: {odd[:5]}.")


def receive(rest: Rest, path: str, digest: str, into: Path) -> None:
    """Download a folder; ``into`` appears when all of it is there and right.

    :param digest: what it must have; an ``into`` that has it already is left as it is.
    :raises TrackingError: the server cannot be reached or has something else; ``into`` is taken.
    """
    if into.exists():
        if any(into.iterdir()):
            if digest_of(into) == digest:
                return
            raise TrackingError(f"{into} has other files in it.", hint="Delete it, or use another.")
        into.rmdir()
    into.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
    try:
        for name in listed(rest, path):
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as stream:
                for part in rest.download(f"{path}/{name}"):
                    stream.write(part)
                stream.flush()
                os.fsync(stream.fileno())
        found = digest_of(draft) if any(draft.iterdir()) else "nothing"
        if found != digest:
            message = f"The MLflow server {rest.address} has {found} at {path}, not {digest}."
            raise TrackingError(message, hint="The artifact was changed or lost; train again.")
        draft.rename(into)
    except OSError as error:
        raise TrackingError(f"{into} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """All files below a folder, sorted by their paths as text."""
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.")
    paths = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            hint = "Write the file itself into the model folder."
            raise ModelError(f"{path} is neither a file nor a folder.", hint=hint)
    files = [path for path in paths if path.is_file()]
    if not files:
        hint = "The script has to write its model into the folder that SM_MODEL_DIR names."
        raise ModelError(f"The model folder {folder} is empty.", hint=hint)
    return files


def listed(rest: Rest, path: str) -> dict[str, int]:
    """Path below ``path`` to size in bytes, of every file that the server has there."""
    sizes: dict[str, int] = {}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        for entry in rest.list(f"{path}/{below}".rstrip("/")):
            name = PurePosixPath(entry["path"])
            if len(name.parts) != 1 or name.name in ("", "..") or name.is_absolute():
                raise TrackingError(f"The MLflow server {rest.address} has a file named {name}.")
            inner = f"{below}/{name}".lstrip("/")
            if entry.get("is_dir"):
                waiting.append(inner)
            else:
                sizes[inner] = int(entry.get("file_size", 0))
    return sizes
