"""The figure ``store``: encrypting, storing, reading a part, changing the key."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import streams
from bench.age import age_in
from bench.measure import OURS, Measure, NotMeasuredError, Options, Row, beside
from tracklayer.store import Blob, Store, keys_of

_MIB = 1 << 20
_READS = 50  # a pair


def run(options: Options) -> list[Row]:
    """The streams in memory, all else on the file system of temporary files."""
    rows = streams.run(options)
    for figure in (_put, _part, _rotation):
        with TemporaryDirectory(prefix="bench-") as name:
            rows += figure(Path(name), options)
    return rows


def _store(folder: Path) -> Store:
    """With a key of its own."""
    return Store(folder, keys_of(f"file:{folder}.key", root=folder))


def _put(folder: Path, options: Options) -> list[Row]:
    size = 16 if options.quick else 512
    source = folder / "source"
    streams.fill(source, size * _MIB)
    number = count()

    def ours() -> float:
        with source.open("r+b") as stream:  # other content each time, or nothing would be to do
            stream.write(next(number).to_bytes(8))
        os.sync()
        store = _store(folder / "store")
        begin = time.perf_counter()
        store.put_file(source)
        seconds = time.perf_counter() - begin
        shutil.rmtree(store.root)
        return seconds

    names = {"sha256sum, age, sync": "sha256sum", "openssl, age, sync": "openssl dgst -sha256"}
    return beside(
        f"put {size} MiB, durable",
        "s",
        options.pairs or 3,
        {OURS: ours} | {name: _shell(hashing, source) for name, hashing in names.items()},
        dict(zip(names, (1 / 2, None), strict=True)),
    )


def _shell(hashing: str, source: Path) -> Measure:
    """What a person would type, as whole commands; their start is nothing beside their work."""
    script = f'{hashing} "$1" >"$2.sum"; age -r "$3" -o "$2" "$1"; sync "$2" "$2.sum" "$4"'

    def measure() -> float:
        sealed = source.with_suffix(".age")
        sealed.unlink(missing_ok=True)
        recipient = age_in(source.parent).recipient
        arguments = [str(source), str(sealed), recipient, str(source.parent)]
        os.sync()
        begin = time.perf_counter()
        done = subprocess.run(
            ["sh", "-ec", script, "sh", *arguments], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise NotMeasuredError(done.stderr.strip())
        return seconds

    return measure


def _part(folder: Path, options: Options) -> list[Row]:
    size = (64 if options.quick else 1024) * _MIB
    source = folder / "source"
    streams.fill(source, size)
    store = _store(folder / "store")
    blob = store.put_file(source)
    singles: list[float] = []

    def part() -> float:
        taken = []
        with source.open("rb", buffering=0) as plain:
            for _ in range(_READS):
                place = random.randrange(size - _MIB)
                begin = time.perf_counter()
                with store.open(blob) as stream:
                    stream.seek(place)
                    data = stream.read(_MIB)
                taken.append(1000 * (time.perf_counter() - begin))
                if data != os.pread(plain.fileno(), _MIB, place):
                    raise NotMeasuredError("a part was read that is not the file's")
        singles.extend(taken)
        return statistics.median(taken)

    def whole() -> float:
        begin = time.perf_counter()
        with store.open(blob) as stream:
            while stream.read(_MIB):
                pass
        return 1000 * (time.perf_counter() - begin)

    what = "1 MiB at a random place"
    name = f"all {size // _MIB} MiB"
    rows = beside(what, "ms", options.pairs or 5, {OURS: part, name: whole}, {name: None})
    return [Row(what=what, unit="ms", ours=singles, at_most=1), *rows]


def _rotation(folder: Path, options: Options) -> list[Row]:
    objects = 50 if options.quick else 1000
    store = _store(folder / "store")
    blobs = []
    for _ in range(objects):
        blobs.append(_write(store, os.urandom(_MIB)))
    written: list[float] = []

    def ours() -> float:
        os.sync()
        before = _written()
        begin = time.perf_counter()
        store.rotate()
        seconds = time.perf_counter() - begin
        written.append((_written() - before) / objects)
        return seconds

    def anew() -> float:
        other = _store(folder / "other")
        os.sync()
        begin = time.perf_counter()
        for blob in blobs:
            with store.open(blob) as stream:
                _write(other, stream.read())
        seconds = time.perf_counter() - begin
        shutil.rmtree(other.root)
        return seconds

    name = "read and put anew"
    measures = {OURS: ours, name: anew}
    rows = beside(
        f"new key for {objects} objects of 1 MiB", "s", options.pairs or 3, measures, {name: 1 / 20}
    )
    return [*rows, Row(what="written an object", unit="bytes", ours=written, at_most=1023)]


def _write(store: Store, data: bytes) -> Blob:
    with store.create() as writer:
        writer.write(data)
        return writer.commit()


def _written() -> int:
    """Bytes that this process has given to write() and its like, of all threads."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])
