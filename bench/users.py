"""``python -m bench.users URL RATE``: ask at a constant rate until SIGTERM, then say what came.

Requests start when it is their time, whether or not earlier ones were answered: a server that
stops answering is asked as often as one that does. The answer's value says which version gave it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time

import aiohttp
import uvloop

ADDED = 1000
"""What the model of version 1 adds to its input; that of version 2 twice as much, and so on."""

_INPUT = 7
_TIMEOUT = 10.0  # seconds


async def _users(url: str, rate: float) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    answers: list[tuple[float, int]] = []
    failures: list[tuple[float, str]] = []
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [_INPUT]}
    body = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Content-Type": "application/json"}

    async def ask() -> None:
        at = time.time()
        try:
            async with session.post(url, data=body, headers=headers) as answer:
                found = await answer.json()
                if answer.status == 200:
                    answers.append((at, round(found["outputs"][0]["data"][0] - _INPUT) // ADDED))
                else:
                    failures.append((at, f"{answer.status}: {found}"[:200]))
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            failures.append((at, f"{type(error).__name__}: {error}"[:200]))

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await ask()
        print("asking", flush=True)
        begun, number = time.perf_counter(), 0
        async with asyncio.TaskGroup() as tasks:
            while not stopping.is_set():
                number += 1
                tasks.create_task(ask())
                await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
    print(json.dumps({"answers": answers, "failures": failures}))


if __name__ == "__main__":
    uvloop.run(_users(sys.argv[1], float(sys.argv[2])))
