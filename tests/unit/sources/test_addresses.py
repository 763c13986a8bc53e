"""Where a download may go."""

from __future__ import annotations

import socket

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources.addresses import (
    check_redirect,
    private_address,
    proxy_of,
    same_origin,
    shown,
    split,
)


@pytest.mark.parametrize(
    ("url", "for_people"),
    [
        ("https://host/a/b?token=hunter2#x", "https://host/a/b"),
        ("https://u:hunter2@host/a", "https://host/a"),
        ("https://u:hunter@2@host/a", "https://host/a"),
        ("s3://u:hunter2@bucket/a?x", "s3://bucket/a"),
        ("hf://org/name@main", "hf://org/name@main"),
    ],
)
def test_a_url_for_people(url: str, for_people: str) -> None:
    assert shown(url) == for_people


@pytest.mark.parametrize("url", ["https://host/f", "http://localhost:1/f", "http://127.8.0.1/f"])
def test_good(url: str) -> None:
    assert split(url).geturl() == url


@pytest.mark.parametrize(
    "url",
    [
        "http://host/f",
        "http://localhost.evil.org/f",
        "http://127.0.0.1.evil.org/f",
        "http://2130706433/f",
        "ftp://host/f",
        "https:///f",
        "//host/f",
        "https://u@host/f",
        "https://host:port/f",
        "https://host/a b",
        "https://host/a\r\nHost: x",
    ],
)
def test_bad(url: str) -> None:
    with pytest.raises(SourceError):
        split(url)


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("255.255.255.255", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("64:ff9b::10.0.0.1", True),
        ("64:ff9b::8.8.8.8", False),
        ("2002:a00:1::1", True),
        ("2002:808:808::1", False),
        ("::127.0.0.1", True),
        ("::", True),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    assert private_address(address) is private


@pytest.mark.parametrize(
    ("start", "following", "allowed"),
    [
        ("https://8.8.8.8/f", "https://1.1.1.1/f", True),
        ("https://8.8.8.8/f", "https://10.0.0.1/f", False),
        ("https://8.8.8.8/f", "https://169.254.169.254/latest/meta-data", False),
        ("https://8.8.8.8/f", "https://localhost/f", False),
        ("https://8.8.8.8/f", "http://127.0.0.1/f", False),
        ("https://8.8.8.8/f", "https://[::ffff:10.0.0.1]/f", False),
        ("https://8.8.8.8/f", "https://[fd00::1]/f", False),
        ("https://8.8.8.8/f", "https://[64:ff9b::a9fe:a9fe]/f", False),
        ("https://8.8.8.8/f", "https://[fe80::1]/f", False),
        ("https://8.8.8.8/f", "https://0x7f.1/f", False),
        ("https://8.8.8.8/f", "https://2130706433/f", False),
        ("https://8.8.8.8/f", "http://1.1.1.1/f", False),
        ("https://8.8.8.8/f", "file:///etc/passwd", False),
        ("https://10.0.0.1/f", "https://10.0.0.2/f", True),
        ("http://127.0.0.1/f", "http://127.0.0.1:81/f", True),
    ],
)
def test_a_redirect_stays_where_it_belongs(start: str, following: str, allowed: bool) -> None:
    if allowed:
        check_redirect(start, following)
    else:
        with pytest.raises(SourceError, match=r"private address|must begin with https"):
            check_redirect(start, following)


def test_a_name_with_one_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int, **_: object) -> list[object]:
        addresses = ["8.8.8.8", "10.0.0.1"] if host == "half.example.org" else ["8.8.8.8"]
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    check_redirect("https://8.8.8.8/f", "https://whole.example.org/f")
    with pytest.raises(SourceError, match="private address"):
        check_redirect("https://8.8.8.8/f", "https://half.example.org/f")


def test_origins() -> None:
    assert same_origin("https://host/a", "https://host:443/b?x")
    assert not same_origin("https://host/a", "https://host:444/a")
    assert not same_origin("https://localhost/a", "http://localhost/a")
    assert not same_origin("https://host/a", "https://host.org/a")


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    url = split("https://host.example.org/f")
    assert proxy_of(url) is None
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    assert proxy_of(url) == "http://all:1"
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    assert proxy_of(url) == "http://proxy:3128"
    assert proxy_of(split("https://127.0.0.1/f")) is None
    assert proxy_of(split("http://localhost/f")) is None
    for without in ("host.example.org", ".example.org", "*", "example.org,other"):
        monkeypatch.setenv("NO_PROXY", without)
        assert proxy_of(url) is None
    monkeypatch.setenv("NO_PROXY", "ample.org")
    assert proxy_of(url) == "http://proxy:3128"
