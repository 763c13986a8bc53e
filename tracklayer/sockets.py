"""Listening sockets: owner-only unix sockets, TCP ports, and the errors of both."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from tracklayer.errors import PlatformError

LONGEST = 107
"""Bytes that the path of a unix socket may have (unix(7))."""


def listen_unix(path: Path) -> socket.socket:
    """A listening unix socket at ``path`` that only its owner can open.

    A socket file that nobody listens on any more is removed first; missing folders are made,
    owner-only.

    :raises PlatformError: the path is too long or cannot be written, something else lies there,
        or another process listens on it.
    """
    if len(os.fsencode(path)) > LONGEST:
        raise PlatformError(
            f"the socket path {path} is longer than {LONGEST} bytes",
            hint="Choose a shorter folder for sockets (XDG_RUNTIME_DIR).",
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The file gets its mode when it is bound: there is no moment in which others can open it.
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        listener.listen(1024)
    except OSError as error:
        raise PlatformError(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def grpc_beside(path: Path) -> Path:
    """Where a model server that has its HTTP at ``path`` has its gRPC."""
    # As long as the other: the path of a socket may have 107 bytes.
    stem = path.name.removesuffix(".sock")
    return path.with_name(f"{stem}.grpc")


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one.

    :raises PlatformError: the port is in use or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise PlatformError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="Stop the program that uses the port, or choose another port.",
        ) from error


def accepts(path: Path) -> bool:
    """Does a process listen on the unix socket ``path``?"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (OSError, ValueError):
            return False
        return True


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise PlatformError(f"cannot listen on {path}: a file lies there that is not a socket")
    if accepts(path):
        raise PlatformError(
            f"cannot listen on {path}: another process listens there",
            hint="Stop that process first.",
        )
    path.unlink()
