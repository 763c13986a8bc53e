"""The options that many commands share, and what they mean."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracklayer.errors import PlatformError

if TYPE_CHECKING:
    from tracklayer.cli.client import Platform

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, alone on stdout.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="TRACKLAYER_URL",
        help="Address of a remote platform; default: the one on this machine.",
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        envvar="TRACKLAYER_TOKEN_FILE",
        help="File with a token for the platform, or - for stdin. "
        "Or put the token into TRACKLAYER_TOKEN; never into a command line, which all can read.",
    ),
]
_DURATION = re.compile("([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TOKEN = "TRACKLAYER_TOKEN"  # noqa: S105 - the variable's name
_LARGEST = 64 << 10  # bytes of a token's file


_DIGITS = 6
"""Of a number of days: more of them end beyond what a date can be."""


def duration(text: str) -> float:
    """Seconds of an option such as ``30d``, ``12h`` or ``90m``."""
    if (found := _DURATION.fullmatch(text)) and len(found[1]) < _DIGITS:
        return int(found[1]) * _SECONDS[found[2]]
    raise typer.BadParameter(f"{text!r} is no time, such as 30d, 12h or 90m.")


def connect(url: str | None, token_file: str | None) -> Platform:
    """The platform that the options mean: a remote one, or the one on this machine.

    :raises PlatformError: there is no token, or the platform here was never started.
    """
    from tracklayer.cli.client import Platform
    from tracklayer.cli.transport import is_local

    token = _token(token_file)
    if url is not None:
        if not url.startswith(("http://", "https://")):
            hint = "Write it as https://host:port."
            raise PlatformError(f"{url!r} is no address of a platform.", hint=hint)
        if not token:
            hint = f"Name a file that has it with `--token-file`, or set {_TOKEN}."
            raise PlatformError(f"A token is needed for the platform at {url}.", hint=hint)
        if url.startswith("http:") and not is_local(url):
            warning = f"Warning: {url} is not encrypted; who is on the way can read the token."
            sys.stderr.write(f"{warning}\n")
        return Platform(url, token)

    from tracklayer import platform

    def login() -> tuple[str, str]:
        found = platform.credentials()
        return found.user, found.password

    return Platform(platform.addresses().airflow, token or login)


def _token(file: str | None) -> str | None:
    """The token, without ever repeating any of it in an error."""
    if file is None:
        found = os.environ.get(_TOKEN)
    elif file == "-":
        found = sys.stdin.read(_LARGEST)
    else:
        try:
            with Path(file).open(encoding="ascii") as stream:
                found = stream.read(_LARGEST)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise PlatformError(f"The token file {file} cannot be read: {reason}.") from None
    found = (found or "").strip()
    if not found.isascii() or any(char.isspace() for char in found):
        raise PlatformError("What was given as a token is none.", hint="It is one word.")
    return found or None
