"""Handles: what is accepted, and what a wrong one is told."""

from __future__ import annotations

from importlib import import_module

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import SCHEMES, parse
from tracklayer.sources.git import GitSource
from tracklayer.sources.https import HttpsSource
from tracklayer.sources.path import PathSource

HEX = "ab" * 32
COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("handle", "source"),
    [
        ("path:data/x.csv.gz", PathSource("data/x.csv.gz")),
        ("path:./data/", PathSource("data")),
        (
            f"https://host.org/a/f.zip?v=1#sha256={HEX}",
            HttpsSource("https://host.org/a/f.zip?v=1", HEX),
        ),
        (f"http://127.0.0.1:80/f#sha256={HEX.upper()}", HttpsSource("http://127.0.0.1:80/f", HEX)),
        (f"http://[::1]:80/f#sha256={HEX}", HttpsSource("http://[::1]:80/f", HEX)),
        (
            f"git+https://host/o/r.git@{COMMIT}",
            GitSource("https://host/o/r.git", COMMIT),
        ),
        ("git+https://host/o/r@v1.0", GitSource("https://host/o/r", "v1.0")),
        (
            "git+file:///srv/r.git@refs/heads/a/b#subdirectory=x/y/",
            GitSource("file:///srv/r.git", "refs/heads/a/b", "x/y"),
        ),
    ],
)
def test_good(handle: str, source: object) -> None:
    assert parse(handle) == source


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        ("", "begins with"),
        ("data/x.csv", "begins with"),
        ("htps://host/x", "Did you mean https"),
        ("ftp://host/x", "path:, hf:, kaggle:, s3:, https:, git+https:, git+ssh:, git+file:"),
        ("ftp://u:hunter2@host/x?key=hunter2", "unknown kind"),
        ("ext::sh -c touch% /tmp/x", "unknown kind"),
        ("path:", "inside the project"),
        ("path:../x", "inside the project"),
        ("path:a/../../x", "inside the project"),
        ("path:/etc/passwd", "inside the project"),
        ("path:a\0b", "inside the project"),
        ("https://host/f", "no digest"),
        ("https://host/f#sha256=12", "no digest"),
        (f"https://host/f#md5={HEX}", "no digest"),
        (f"https://u:hunter2@host/f#sha256={HEX}", "user or a password"),
        (f"http://host/f#sha256={HEX}", "must begin with https"),
        (f"http://127.0.0.1.evil.org/f#sha256={HEX}", "must begin with https"),
        (f"https:///f#sha256={HEX}", "must begin with https"),
        (f"https://[::1/f#sha256={HEX}", "not a URL"),
        ("git+https://host/r.git", "after an @"),
        ("git+https://u:hunter2@host/r.git", "after an @"),
        ("git+https://host/r.git@", "does not accept"),
        ("git+https://host/r.git@--upload-pack=touch", "does not accept"),
        ("git+https://host/r.git@a..b", "does not accept"),
        ("git+https://host/r.git@a b", "does not accept"),
        ("git+https://u:hunter2@host/r.git@main", "user or a password"),
        ("git+https:///r.git@main", "not the address"),
        ("git+file://host/r.git@main", "not the address"),
        ("git+https://host/r.git@main#egg=x", "subdirectory"),
        ("git+https://host/r.git@main#subdirectory=../x", "subdirectory"),
        ("git+shh://host/r.git@main", "Did you mean git+ssh"),
        ("git+ext://sh -c id@main", "unknown kind"),
    ],
)
def test_bad(handle: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(handle)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", [*SCHEMES, "nobodys"])
@pytest.mark.parametrize("rest", ["org/name@main", "datasets/a/b", "a", "a/b/c/d#sha256=x", ""])
def test_a_password_in_a_wrong_handle_is_not_shown(scheme: str, rest: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(f"{scheme}://u:hunter2@{rest}")
    assert "hunter2" not in str(caught.value)


def test_every_scheme_is_there() -> None:
    for dotted in SCHEMES.values():
        module, _, name = dotted.partition(":")
        assert callable(getattr(import_module(module), name).parse)
