"""``python -m bench.sealing SIDE seal|open SOURCE TARGET KEYS``: one file, in a process of its own.

It prints JSON: the seconds from opening the files until both are closed, imports not counted, and
the most that was resident in MiB. ``TARGET`` is written over in place, so that its pages are there
already if it was written before. What a side needs as its key it makes in the folder ``KEYS``.

Nothing but the standard library is imported for all: ``tink`` has an interpreter of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

Side = Callable[[bool, Path, Path, Path], float]
"""Called with: whether to seal, source, target, folder of keys. Gives the seconds it took."""


def ours(seal: bool, source: Path, target: Path, keys: Path) -> float:
    """Two threads, chunks of 1 MiB."""
    from tracklayer.store.keys import keys_of
    from tracklayer.store.stream import seal as encrypt
    from tracklayer.store.stream import unseal as decrypt

    found = keys_of(f"file:{keys / 'ours'}", root=keys)
    assert found is not None  # a file is a place of keys
    work = encrypt if seal else decrypt
    begin = time.perf_counter()
    with source.open("rb", buffering=0) as reading, _over(target) as writing:
        work(reading, writing, found)
    return time.perf_counter() - begin


def tink(seal: bool, source: Path, target: Path, keys: Path) -> float:
    """AES256_GCM_HKDF_1MB in the steps that are fastest for it: 256 KiB, no buffer of Python's."""
    core, streaming = import_module("tink"), import_module("tink.streaming_aead")
    formats, token = core.json_proto_keyset_format, import_module("tink.secret_key_access").TOKEN
    streaming.register()
    path = keys / "tink"
    if not path.exists():
        template = streaming.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
        path.write_text(formats.serialize(core.new_keyset_handle(template), token))
    primitive = formats.parse(path.read_text(), token).primitive(streaming.StreamingAead)
    step = 256 << 10
    begin = time.perf_counter()
    with source.open("rb", buffering=0) as reading, _over(target) as writing:
        if seal:
            with primitive.new_encrypting_stream(writing, b"") as encrypting:
                shutil.copyfileobj(reading, encrypting, step)
        else:
            with primitive.new_decrypting_stream(reading, b"") as decrypting:
                shutil.copyfileobj(decrypting, writing, step)
    return time.perf_counter() - begin


def fernet(seal: bool, source: Path, target: Path, keys: Path) -> float:
    """Knows no streams: all of it is in memory."""
    from cryptography.fernet import Fernet

    path = keys / "fernet"
    if not path.exists():
        path.write_bytes(Fernet.generate_key())
    key = Fernet(path.read_bytes())
    begin = time.perf_counter()
    with source.open("rb", buffering=0) as reading, _over(target) as writing:
        data = reading.read()
        writing.write(key.encrypt(data) if seal else key.decrypt(data))
    return time.perf_counter() - begin


def copy(seal: bool, source: Path, target: Path, keys: Path) -> float:  # noqa: ARG001
    """Read and write with one buffer: the same either way."""
    buffer = memoryview(bytearray(1 << 20))
    begin = time.perf_counter()
    with source.open("rb", buffering=0) as reading, _over(target) as writing:
        while count := reading.readinto(buffer):
            writing.write(buffer[:count])
    return time.perf_counter() - begin


def copyfile(seal: bool, source: Path, target: Path, keys: Path) -> float:  # noqa: ARG001
    """The standard library's, in the kernel; begins by giving the target's pages back."""
    begin = time.perf_counter()
    shutil.copyfile(source, target)
    return time.perf_counter() - begin


SIDES: dict[str, Side] = {
    "ours": ours,
    "tink": tink,
    "Fernet": fernet,
    "copy": copy,
    "copyfile": copyfile,
}


def _over(target: Path) -> BinaryIO:
    target.touch()
    return target.open("r+b", buffering=0)


def most_resident() -> float:
    """MiB. Not getrusage's, which begins with what the parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (most,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(most) / 1024


if __name__ == "__main__":
    side, way, *names = sys.argv[1:]
    seconds = SIDES[side](way == "seal", *map(Path, names))
    print(json.dumps({"seconds": seconds, "resident": most_resident()}))
