"""What is counted is written, whenever the end comes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tracklayer.gateway import usage
from tracklayer.gateway.usage import Usage, used


def test_what_is_counted_while_the_last_write_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "usage.db"
    writing, go_on = threading.Event(), threading.Event()
    write = usage._add

    def slowly(*arguments: object) -> None:
        writing.set()
        go_on.wait(10)
        write(*arguments)

    monkeypatch.setattr(usage, "_add", slowly)

    async def run() -> None:
        counted = Usage(file)
        keeping = asyncio.create_task(counted.keep())
        counted.add(("ann", "digits", 1), failed=False, received=5, sent=7, seconds=0.1)
        await asyncio.to_thread(writing.wait, 10)
        counted.add(("ann", "digits", 1), failed=True, received=5, sent=7, seconds=0.1)
        counted.close()
        go_on.set()
        await keeping

    asyncio.run(run())
    assert [(row.requests, row.errors, row.bytes_in) for row in used(file)] == [(2, 1, 10)]
