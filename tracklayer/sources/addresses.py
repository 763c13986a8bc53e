"""Where a download may go: the web by TLS, this machine, and never from the web into a network."""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from tracklayer.errors import SourceError

# RFC 6052 (NAT64), RFC 4291 (IPv4-compatible; :: and ::1 are among these, and not global either).
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96")))


def shown(url: str) -> str:
    """An address for people: without what may be secret, the query and the user."""
    plain = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"//[^/]*@", "//", plain)


def without_login(handle: str) -> str:
    """A handle for people who have to mend it: without a user and password before its host."""
    return re.sub(r"//[^/@]*:[^/@]*@", "//", handle)


@lru_cache(64)  # for each request it is asked several times
def split(url: str) -> SplitResult:
    """The parts of an address that a download may go to.

    :raises SourceError: it is none, it is not https (or http to this machine), it holds a user.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise SourceError(f"{shown(url)} is not a URL: {error}") from None
    if not (parts.scheme == "https" and host) and not (
        parts.scheme == "http" and loopback(host or "")
    ):
        raise SourceError(
            f"{shown(url)} must begin with https://",
            hint="Plain http:// is accepted from this machine alone (localhost, 127.0.0.1).",
        )
    if "@" in parts.netloc:
        raise SourceError(
            f"{shown(url)} carries a user or a password",
            hint="Many read a spec and a log; an address must not hold secrets.",
        )
    if re.search(r"[\x00-\x20\x7f]", url):
        raise SourceError(f"{shown(url)!r} is not a URL: a space or control character is in it")
    return parts


def check_redirect(start: str, following: str) -> None:
    """Whether a download that began at ``start`` may go on at ``following``.

    :raises SourceError: it would leave the web for this machine or a private network, or leave TLS.
    """
    if private(split(following)) and not private(split(start)):
        raise SourceError(
            f"{shown(start)} redirects to the private address {shown(following)}",
            hint="A public address must not lead into a private network.",
        )


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses are of one server (RFC 6454)."""
    first, second = split(one), split(other)
    return (first.scheme, first.hostname, _port(first)) == (
        second.scheme,
        second.hostname,
        _port(second),
    )


def loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def private_address(address: str) -> bool:
    """Whether an IP address is of a private network, of this machine, or otherwise not public."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = _carried(found) or found
    return not found.is_global or found.is_multicast


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that one of IPv6 stands for, where a translator or a tunnel leads there."""
    if any(address in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def private(parts: SplitResult) -> bool:
    """Whether any address of the host is not public. A name only a proxy can resolve counts as
    public: there the proxy decides."""
    host = parts.hostname or ""
    try:
        return private_address(host)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, _port(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(private_address(str(entry[4][0])) for entry in found)


def proxy_of(parts: SplitResult) -> str | None:
    """The proxy that the environment names for an address; none for this machine."""
    if loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return found if not found or "://" in found else f"http://{found}"


def _port(parts: SplitResult) -> int:
    return parts.port or {"https": 443, "http": 80}[parts.scheme]
