"""What a program of this folder does that is no server: answer in turns, and say how long it took.

It writes the numbers of its answer as a line of JSON, and then, for each line that it reads, the
mean milliseconds of an answer over so many seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def take_turns(answer: Callable[[], Any]) -> None:
    print(json.dumps(answer().ravel().tolist()), flush=True)
    for line in sys.stdin:
        seconds, count, begin = float(line), 0, time.perf_counter()
        while (taken := time.perf_counter() - begin) < seconds:
            answer()
            count += 1
        print(1000 * taken / count, flush=True)
