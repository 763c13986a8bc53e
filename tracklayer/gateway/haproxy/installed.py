"""The program ``haproxy`` of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from tracklayer.errors import PlatformError

_LEAST = (2, 6)
_FOLDERS = ("/usr/local/sbin", "/usr/sbin")
"""Of administrators' programs, which are not on everybody's path."""
_HINT = (
    "Install HAProxy 2.6 or newer, with Lua (Debian: apt install haproxy), or let the gateway "
    "answer by itself: TRACKLAYER_GATEWAY_PROXY=embedded"
)


def program() -> str:
    """Where it is.

    :raises PlatformError: there is none, or one that cannot do what it has to.
    """
    folders = [os.environ.get("PATH", os.defpath), *_FOLDERS]
    found = shutil.which("haproxy", path=os.pathsep.join(folders))
    if found is None:
        raise PlatformError("there is no HAProxy on this machine", hint=_HINT)
    said = subprocess.run([found, "-vv"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"HAProxy version (\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < _LEAST:
        shown = f"{version[1]}.{version[2]}" if version else "of an unknown version"
        raise PlatformError(f"{found} is {shown}, and 2.6 is needed", hint=_HINT)
    if "Built with Lua" not in said:
        raise PlatformError(f"{found} was built without Lua", hint=_HINT)
    return found
