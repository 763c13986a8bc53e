"""``python -m bench.fetching SIDE HUB HANDLE FOLDER [AGAIN]``: fetch once, in a process of its own.

SIDE is ``ours`` or ``huggingface_hub``; all that it keeps is in FOLDER. It prints JSON: the
seconds, imports not counted, and the bytes and files that are there then. With AGAIN, ours then
fetches so often without the network: the milliseconds of each, and how often a socket was touched.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def ours(handle: str, folder: Path, again: int) -> dict[str, Any]:
    """Into an encrypted store, durably."""
    from tracklayer.sources import fetch, parse
    from tracklayer.store import Store, keys_of

    root = folder / "store"
    store = Store(root, keys_of(f"file:{folder / 'key'}", root=root))
    touched = 0

    def hook(event: str, _arguments: object) -> None:
        nonlocal touched
        touched += event.startswith("socket.")

    if again:
        sys.addaudithook(hook)
    parse(handle)  # imports what its scheme needs
    begin = time.perf_counter()
    found = fetch(handle, project=folder, store=store)
    answer: dict[str, Any] = {
        "seconds": time.perf_counter() - begin,
        "bytes": found.manifest.size,
        "files": len(found.manifest.files),
    }
    if again:
        assert touched  # or the hook sees nothing
        touched = 0
        taken = []
        for _ in range(again):
            begin = time.perf_counter()
            fetch(handle, project=folder, store=store, offline=True)
            taken.append(1000 * (time.perf_counter() - begin))
        answer |= {"again": taken, "touched": touched}
    return answer


def huggingface_hub(handle: str, folder: Path, again: int) -> dict[str, Any]:  # noqa: ARG001
    """``snapshot_download`` as it comes, into an empty cache: plain files, not made durable."""
    from huggingface_hub import snapshot_download

    name, _, commit = handle.removeprefix("hf://").partition("@")
    kind = "dataset" if name.startswith("datasets/") else "model"
    begin = time.perf_counter()
    found = snapshot_download(name.removeprefix("datasets/"), repo_type=kind, revision=commit)
    seconds = time.perf_counter() - begin
    sizes = [path.stat().st_size for path in Path(found).rglob("*") if path.is_file()]
    return {"seconds": seconds, "bytes": sum(sizes), "files": len(sizes)}


def _settle(hub: str, folder: Path) -> None:
    """Only what is under measurement decides: no setting and no token of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        del os.environ[name]
    off = dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_PROGRESS_BARS"), "1")
    homes = {"HF_HOME": str(folder / "hf"), "TRACKLAYER_HOME": str(folder / "home")}
    os.environ |= {"HF_ENDPOINT": hub, "no_proxy": "127.0.0.1", **off, **homes}


if __name__ == "__main__":
    side, where, wanted, into, *times = sys.argv[1:]
    _settle(where, Path(into))
    measure = {"ours": ours, "huggingface_hub": huggingface_hub}[side]
    print(json.dumps(measure(wanted, Path(into), int(times[0]) if times else 0)))
