"""Becomes a program that ends with its parent.

``python -m tracklayer.runtimes.tethered <parent> <program> [<argument> ...]``

A program of its own, because what runs between fork and exec of a process with threads may take
no lock. Standard library only, to start fast.
"""

from __future__ import annotations

import os
import signal
import sys

from tracklayer.runtimes.linux import die_with_parent

if __name__ == "__main__":
    die_with_parent(signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has ended")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is meant
