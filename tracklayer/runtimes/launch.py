"""Becomes the program that a JSON file describes. Run as a script by supervisord.

The format of supervisord's own files cannot carry every argument and variable (quotes, newlines,
percent signs), and shows the variables' values; this file can, and is its owner's alone.
Standard library only: nothing of the platform is imported into a service's start.
"""

from __future__ import annotations

import json
import os
import sys


def main(path: str) -> None:
    """Replaces this process."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs the start 5 ms
        program = json.load(file)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SUPERVISOR_")}
    if program["cwd"]:
        os.chdir(program["cwd"])
    argv = program["argv"]
    os.execvpe(argv[0], argv, inherited | program["env"])  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"cannot start: {error}")
