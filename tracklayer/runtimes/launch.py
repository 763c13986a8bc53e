"""Becomes the program that a JSON file describes. Run as a script by supervisord.

The format of supervisord's own files cannot carry every argument and variable (quotes, newlines,
percent signs), and shows the variables' values; this file can, and is its owner's alone.
Standard library only: nothing of the platform is imported into a service's start.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False  # typing would cost the start 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

SECRETS = "TRACKLAYER_SECRETS"  # in supervisord's environment: the names of what is secret in it


def main(path: str) -> None:
    """Replaces this process."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs the start 5 ms
        program = json.load(file)
    secret = os.environ.pop(SECRETS, "").split()
    hidden = {name for name in secret if not named(name, program.get("secrets", []))}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SUPERVISOR_") and name not in hidden
    }
    if program["cwd"]:
        os.chdir(program["cwd"])
    argv = program["argv"]
    os.execvpe(argv[0], argv, inherited | program["env"])  # noqa: S606 - no shell is meant


def named(name: str, patterns: Iterable[str]) -> bool:
    """Whether a variable is one of those, or begins as ``AWS_*`` says."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"cannot start: {error}")
