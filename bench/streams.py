"""Encrypting and decrypting one file in memory, beside other ciphers and a plain copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.age import age_in
from bench.children import answer
from bench.measure import OURS, Measure, NotMeasuredError, Options, Row, beside, say
from bench.peers import python_of

_MEMORY = Path("/dev/shm")
_MIB = 1 << 20
_LOOKED_AT = 16  # bytes of each MiB
_PART = 16  # Fernet, which keeps all in memory, has a file of a 16th, and its time is multiplied
_FILES = 8  # of the whole size, at the same time

_REFERENCES: dict[str, tuple[float | None, float | None]] = {
    "age": (1 / 2.3, 1 / 3),
    "tink": (1 / 1.2, 1 / 1.2),
    "copy": (1 / 0.85, 1 / 0.85),
    "copyfile": (None, None),
    "Fernet": (None, None),
}
"""Name -> the most that our time may be of theirs, sealing and opening."""


def run(options: Options) -> list[Row]:
    """Time for each reference, and memory for files of three sizes."""
    size = 64 * _MIB if options.quick else 1 << 30
    if shutil.disk_usage(_MEMORY).free < _FILES * size:
        raise NotMeasuredError(f"{_MEMORY} has less than {_FILES * size >> 20} MiB free")
    with TemporaryDirectory(prefix="bench-", dir=_MEMORY) as name:
        rows = _streams(Path(name), options.pairs or 5, size)
    with TemporaryDirectory(prefix="bench-", dir=_MEMORY) as name:
        return rows + _resident(Path(name), size)


def fill(path: Path, size: int) -> None:
    """Make a file of bytes that nothing can compress."""
    with path.open("wb") as stream:
        for _ in range(size // _MIB):
            stream.write(os.urandom(_MIB))


def _streams(folder: Path, pairs: int, size: int) -> list[Row]:
    fill(folder / "plain", size)
    fill(folder / "part", size // _PART)
    rows: list[Row] = []
    for seal, verb in ((True, "seal"), (False, "open")):
        limits = {name: both[not seal] for name, both in _REFERENCES.items()}
        if not seal:
            del limits["copyfile"]  # it would give back the pages of the file that all share
        rows += beside(
            f"{verb} {size // _MIB} MiB in memory",
            "s",
            pairs,
            {name: _measure(name, seal, folder) for name in (OURS, *limits)},
            limits,
            warm=1,  # makes the files, so that their pages are there in the rounds that count
        )
    return rows


def _stream(name: str, seal: bool, source: Path, target: Path, folder: Path) -> float:
    if name == "age":
        return age_in(folder).stream(seal, source, target)
    python = python_of(name) if name == "tink" else None
    verb = "seal" if seal else "open"
    side = "ours" if name == OURS else name
    return float(answer("sealing", side, verb, source, target, folder, python=python)["seconds"])


def _measure(name: str, seal: bool, folder: Path) -> Measure:
    plain = folder / ("part" if name == "Fernet" else "plain")
    sealed, opened = folder / f"{name}.sealed", folder / f"{plain.name}.opened"

    def measure() -> float:
        if seal:
            seconds = _stream(name, seal, plain, sealed, folder)
        else:
            opened.touch()
            _wipe(opened)
            seconds = _stream(name, seal, sealed, opened, folder)
            if _looked_at(opened) != _looked_at(plain):
                raise NotMeasuredError(f"{name} did not decrypt what it encrypted")
        return seconds * (_PART if plain.name == "part" else 1)

    return measure


def _wipe(path: Path) -> None:
    """Make sure that what is looked at was not right before."""
    with path.open("r+b") as stream:
        for place in range(0, path.stat().st_size, _MIB):
            stream.seek(place)
            stream.write(bytes(_LOOKED_AT))


def _looked_at(path: Path) -> bytes:
    with path.open("rb", buffering=0) as stream:
        places = range(0, path.stat().st_size, _MIB)
        return b"".join(os.pread(stream.fileno(), _LOOKED_AT, place) for place in places)


def _resident(folder: Path, size: int) -> list[Row]:
    """The most that our process has, for small and for large files; holes cost no memory."""
    rows = []
    plain, sealed = folder / "plain", folder / "sealed"
    for mib in (size >> 24, size >> 20, size >> 18):
        with plain.open("wb") as stream:
            stream.truncate(mib * _MIB)
        most = []
        for verb, source, target in (("seal", plain, sealed), ("open", sealed, plain)):
            found = answer("sealing", "ours", verb, source, target, folder)
            most.append(found["resident"])
            say(f"  {verb} {mib} MiB: {most[-1]:.0f} MiB resident")
        rows.append(Row(what=f"resident, {mib} MiB", unit="MiB", ours=[max(most)], at_most=100))
    return rows
