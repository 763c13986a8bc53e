"""Proxies that are told of each version by a new configuration and a reload, as references."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import httpx

from bench.measure import NotMeasuredError
from bench.processes import family, free_ports
from tracklayer.gateway.endpoint import Endpoint
from tracklayer.gateway.releases import Release

_WITHIN = 10.0  # seconds for a reload

_HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen all
  bind 127.0.0.1:{port}
  server one unix@{socket}
"""

_NGINX = """
user {user};
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream servers {{
    server unix:{socket};
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://servers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


def program(name: str) -> str | None:
    """Where a proxy is; they are often off the path of who is not root."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


class Proxy(Protocol):
    """A proxy on a port, with a folder of its own."""

    def point(self, socket: Path) -> None:
        """Every request to this server; returns when nothing is left at the one before."""

    def close(self) -> None:
        """End it."""


class Reloaded:
    """The new server is started, the proxy reloaded, the old server stopped.

    :param place: whose servers they are.
    :param folder: for the proxy's files.
    """

    def __init__(self, place: Endpoint, name: str, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._place = place
        self._proxy: Proxy = PROXIES[name](port, folder)
        self._before: int | None = None

    def deploy(self, release: Release, kind: str) -> bool:  # noqa: ARG002
        """Whether the version answers now."""
        (socket,) = self._place.servers.start(release)
        self._proxy.point(socket)
        deadline = time.monotonic() + _WITHIN
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/v2/health/ready", trust_env=False).status_code == 200:
                    break
            time.sleep(0.05)
        if self._before is not None:
            self._place.servers.stop(self._before)
        self._before = release.version
        return True

    def close(self) -> None:
        """End the proxy."""
        self._proxy.close()


class Haproxy:
    """A new process takes the port over (``-sf``); the old one ends with its last connection."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port, self._folder = port, folder
        self._process: subprocess.Popen[bytes] | None = None

    def point(self, socket: Path) -> None:
        """See :class:`Proxy`."""
        config = self._folder / "haproxy.cfg"
        config.write_text(_HAPROXY.format(port=self._port, socket=socket))
        old, argv = self._process, [program("haproxy") or "haproxy", "-f", str(config)]
        if old:
            argv += ["-sf", str(old.pid)]
        self._process = subprocess.Popen(argv)
        if old:
            old.wait()

    def close(self) -> None:
        """See :class:`Proxy`."""
        if self._process:
            self._process.kill()
            self._process.wait()


class Nginx:
    """The master starts new workers (SIGHUP); the old ones end with their last request."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port, self._folder = port, folder
        self._process: subprocess.Popen[bytes] | None = None

    def point(self, socket: Path) -> None:
        """See :class:`Proxy`.

        :raises NotMeasuredError: an old worker does not end.
        """
        config = self._folder / "nginx.conf"
        # Servers' sockets are their owner's, and root's workers would be nobody's.
        user = pwd.getpwuid(os.getuid()).pw_name
        config.write_text(_NGINX.format(port=self._port, socket=socket, user=user))
        if self._process is None:
            argv = [program("nginx") or "nginx", "-p", str(self._folder), "-c", str(config)]
            self._process = subprocess.Popen([*argv, "-e", "stderr"])
            return
        old = family(self._process.pid)[1:]
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + _WITHIN
        while any(worker.is_running() for worker in old):
            if time.monotonic() > deadline:
                raise NotMeasuredError("a worker of nginx does not end after a reload")
            time.sleep(0.01)

    def close(self) -> None:
        """See :class:`Proxy`."""
        if self._process:
            self._process.terminate()
            self._process.wait()


PROXIES = {"haproxy": Haproxy, "nginx": Nginx}
"""Program -> how it is reloaded."""
