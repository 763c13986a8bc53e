"""A model folder as artifacts: sent whole, and named by its content."""

from __future__ import annotations

import hashlib
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
