"""The figure ``fetch``: from a hub on this machine, by us and by huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from bench.children import ROOT, answer, start
from bench.measure import OURS, Measure, NotMeasuredError, Options, Row, beside, say
from bench.processes import clean_environment, last_lines, started

_SERVER = ROOT / "tests" / "hub" / "server.py"
_PEER = "huggingface_hub"
_SPEED = 60_000_000  # bytes a second and connection
_LATENCY = 0.02  # seconds
_FILE = 100 << 10  # bytes of one of many files
_AGAIN = 50
_STARTS_WITHIN = 20.0  # seconds


def run(options: Options) -> list[Row]:
    """All sides use the file system of temporary files, and so does the hub."""
    pairs = options.pairs or 3
    size, many = (64, 50) if options.quick else (2048, 500)
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        large = _large(folder / "hub", size << 20)
        with _hub(folder, bandwidth=_SPEED) as hub:
            rows = _both(f"1 file of {size} MiB, 60 MB/s a connection", 0.2, hub, large, pairs)
            rows.append(_killed(hub, large, size << 20, pairs))
        files = _many(folder / "hub", many)
        with _hub(folder, latency=_LATENCY) as hub:
            rows += _both(f"{many} files of 100 KiB, 20 ms latency", 0.5, hub, files, pairs)
        hundred = _many(folder / "hub", 100)
        with _hub(folder) as hub, TemporaryDirectory(dir=folder) as place:
            return rows + _again(answer("fetching", "ours", hub.url, hundred, place, _AGAIN))


def _both(what: str, limit: float, hub: _Hub, handle: str, pairs: int) -> list[Row]:
    """Each into an empty folder, which is gone before the next begins."""
    hub.list(handle)
    expected: set[tuple[int, int]] = set()

    def measure(side: str) -> Measure:
        def once() -> float:
            os.sync()
            with TemporaryDirectory(prefix="bench-") as place:
                found = answer("fetching", side, hub.url, handle, place)
            expected.add((found["bytes"], found["files"]))
            if len(expected) > 1:
                raise NotMeasuredError(f"the sides do not have the same: {expected}")
            return float(found["seconds"])

        return once

    return beside(what, "s", pairs, {OURS: measure("ours"), _PEER: measure(_PEER)}, {_PEER: limit})


def _killed(hub: _Hub, handle: str, size: int, times: int) -> Row:
    """By the bytes that the hub sent, those in flight when the process was killed too."""
    sent = []
    for number in range(times):
        with TemporaryDirectory(prefix="bench-") as place:
            before = hub.sent()
            with start("fetching", "ours", hub.url, handle, place) as child:
                while hub.sent() - before < size / 2:
                    if child.poll() is not None:
                        said = child.communicate()[1].strip().splitlines()[-1:]
                        raise NotMeasuredError(f"it ended before it was killed: {said}")
                    time.sleep(0.01)
                child.kill()
            answer("fetching", "ours", hub.url, handle, place)
            sent.append((hub.sent() - before) / size)
        say(f"  {number + 1}/{times}  killed at half: {sent[-1]:.4f}")
    return Row(what="sent, killed at half", unit="of the file", ours=sent, at_most=1.02)


def _again(found: dict[str, Any]) -> list[Row]:
    what = f"{found['files']} files again, offline"
    return [
        Row(what=what, unit="ms", ours=found["again"], at_most=50),
        Row(what=what, unit="sockets", ours=[found["touched"]], at_most=0),
    ]


def _large(root: Path, size: int) -> str:
    """A model of one file of safetensors: one tensor of bytes."""
    folder, handle = _repository(root, "models", "lab/large")
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    head = json.dumps({"weight": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for _ in range(size >> 20):
            stream.write(os.urandom(1 << 20))
    return handle


def _many(root: Path, number: int) -> str:
    """A data set of so many tables."""
    folder, handle = _repository(root, "datasets", f"lab/tables-{number}")
    for index in range(number):
        digits = os.urandom(_FILE // 2).hex()[: _FILE - 4]
        lines = [
            f"{digits[at : at + 31]},{digits[at + 32 : at + 63]}"
            for at in range(0, len(digits), 64)
        ]
        (folder / f"table-{index:03}.csv").write_text("a,b\n" + "\n".join(lines))
    return handle


def _repository(root: Path, kind: str, name: str) -> tuple[Path, str]:
    commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    repository = root / "huggingface" / kind / name
    folder = repository / "commits" / commit
    folder.mkdir(parents=True)
    (repository / "refs.json").write_text(json.dumps({"main": commit}))
    return folder, f"hf://{'' if kind == 'models' else f'{kind}/'}{name}@{commit}"


class _Hub:
    """The tests' hub, which runs: its address, and what it says about itself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=300)

    def list(self, handle: str) -> None:
        """Have it compute the digests, which it keeps, before anybody waits for them."""
        name, _, commit = handle.removeprefix("hf://").partition("@")
        kind = "" if name.startswith("datasets/") else "models/"
        path = f"/api/{kind}{name}/tree/{commit}?recursive=true"
        self._client.get(path).raise_for_status()

    def sent(self) -> int:
        """Bytes that it has sent so far."""
        return int(self._client.get("/_stats").json()["bytes"])


@contextmanager
def _hub(folder: Path, **knobs: float) -> Iterator[_Hub]:
    log = folder / "hub.log"
    log.unlink(missing_ok=True)
    argv = [sys.executable, str(_SERVER), "--root", str(folder / "hub")]
    argv += [f"--{name}={value}" for name, value in knobs.items()]
    with started(argv, env=clean_environment(), cwd=folder, log=log) as process:
        deadline = time.monotonic() + _STARTS_WITHIN
        while not log.exists() or not log.read_text().endswith("}\n"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotMeasuredError(f"the hub did not start: {last_lines(log)}")
            time.sleep(0.02)
        yield _Hub(json.loads(log.read_text().splitlines()[-1])["url"])
