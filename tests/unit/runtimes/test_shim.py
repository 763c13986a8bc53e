from __future__ import annotations

import os
import subprocess
import sys

from tracklayer.runtimes.shim import claim


def test_what_is_free_is_taken_first_and_what_is_taken_is_shared() -> None:
    kind = f"test-{os.getpid()}"
    first, marks = claim(kind, ["0", "1", "2"], 2)
    assert first == ["0", "1"]
    second, more = claim(kind, ["0", "1", "2"], 2)
    assert second[0] == "2"
    assert second[1] in first
    for mark in marks:
        mark.close()
    assert claim(kind, ["0", "1", "2"], 1)[0] == ["0"]
    assert claim(kind, [], 0) == ([], [])
    for mark in more:
        mark.close()


def test_the_guard_starts_without_anything_heavy() -> None:
    code = "import sys, tracklayer.runtimes.shim; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout.split()
    assert not {"psutil", "pydantic", "supervisor", "asyncio", "tracklayer.settings"} & set(loaded)
