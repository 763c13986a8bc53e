"""Pools of connections: by a proxy or not, with certificates, and only to whom they may lead."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from socket import socket
from typing import Any
from urllib.parse import unquote, urlsplit

from urllib3 import PoolManager, ProxyManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ProxySchemeUnknown
from urllib3.util import make_headers

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import private_address
from tracklayer.sources.protocol import Limits

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

Opened = Callable[[socket], None]


def new_manager(
    scheme: str, guarded: bool, proxy: str | None, limits: Limits, opened: Opened
) -> PoolManager:
    """Pools for one scheme.

    :param guarded: refuse to connect to an address that is not public.
    :param opened: told of each new connection.
    :raises SourceError: the proxy or the bundle of certificates that the environment names is none.
    """
    options: dict[str, Any] = {
        "maxsize": limits.connections,
        "timeout": Timeout(connect=min(limits.connect, limits.stall), read=limits.stall),
    }
    if scheme == "https":
        options["ssl_context"] = certificates()
    if not proxy:
        manager = PoolManager(**options)
    else:
        address = urlsplit(proxy)
        login, _, host = address.netloc.rpartition("@")
        headers = make_headers(proxy_basic_auth=unquote(login)) if login else None
        try:
            manager = ProxyManager(
                address._replace(netloc=host).geturl(), proxy_headers=headers, **options
            )
        except ProxySchemeUnknown:
            raise SourceError(
                f"the proxy {address.scheme}://{host} is of a kind that is not supported",
                hint="HTTPS_PROXY and the like name a proxy by http:// or https://.",
            ) from None
    manager.pool_classes_by_scheme = _pools(guarded, opened)
    return manager


def certificates() -> ssl.SSLContext:
    """Whom a server has to be certified by: the bundle that the environment names, or the usual.

    :raises SourceError: there are no certificates where the environment says.
    """
    for variable in BUNDLES:
        if path := os.environ.get(variable):
            try:
                return ssl.create_default_context(cafile=path)
            except (OSError, ssl.SSLError) as error:
                raise SourceError(
                    f"{variable} names {path}, which cannot be read as certificates: {error}"
                ) from error
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class _Connection(HTTPConnection):
    """Tells who waits for it that it is there, and refuses a private peer if it is guarded."""

    guarded: bool
    opened: Opened

    def _new_conn(self) -> socket:
        connection = super()._new_conn()
        peer = str(connection.getpeername()[0])
        if self.guarded and private_address(peer):
            connection.close()
            raise SourceError(
                f"{self.host} leads to the private address {peer}",
                hint="A public address must not lead into a private network.",
            )
        return connection

    def connect(self) -> None:
        super().connect()
        self.opened(self.sock)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


def _pools(guarded: bool, opened: Opened) -> dict[str, type[HTTPConnectionPool]]:
    """Classes, because a pool gives its connections nothing that urllib3 does not know."""
    known = {"guarded": guarded, "opened": staticmethod(opened)}
    plain = type("Connection", (_Connection,), known)
    secure = type("SecureConnection", (_SecureConnection,), known)
    return {
        "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


class _NoQueries(logging.Filter):
    """Cuts the query off an address that urllib3 logs: it may be a signature."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args
            )
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_NoQueries())
