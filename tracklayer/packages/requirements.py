"""What a project may ask for: names, versions, markers, and addresses that are pinned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tracklayer.errors import PackagesError

_COMMIT = re.compile(r"@[0-9a-f]{40}(?:#.*)?$")
_SHA256 = re.compile(r"#(?:.*&)?sha256=[0-9a-f]{64}(?:&.*)?$")
_LOCAL = re.compile(r"[./~]|[A-Za-z]:\\|[^@]*\.(whl|tar\.gz|zip|txt)$|file:")


def check(lines: Iterable[str]) -> list[str]:
    """Requirements in their normal form, sorted, without duplicates.

    :raises PackagesError: a line is not a requirement, or one that cannot be reproduced.
    """
    return sorted({_check(line.strip()) for line in lines})


def _check(line: str) -> str:
    if line.startswith("-"):
        raise PackagesError(
            f"packages.requirements: {line!r} is an option, not a requirement",
            hint="indexes are set for the whole platform, in pip's configuration",
        )
    if _LOCAL.match(line):
        raise PackagesError(
            f"packages.requirements: {line!r} is a path on one machine",
            hint="put the code into the project's folder, or publish the package to an index",
        )
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise PackagesError(
            f"packages.requirements: {line!r} is not a requirement: {reason}",
            hint='such as "torch==2.13.0" or "pandas>=2,<3" (PEP 508)',
        ) from error
    if requirement.url:
        _check_url(line, requirement.url)
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def _check_url(line: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise PackagesError(
            f"packages.requirements: the address of {line.split('@')[0].strip()!r} holds a secret",
            hint="set it up for git or in a netrc file on the platform's machine",
        )
    pin = {"https": _SHA256, "git+https": _COMMIT}.get(parts.scheme)
    if pin is None:
        raise PackagesError(
            f"packages.requirements: {line!r} has an address that is not allowed",
            hint="allowed are https://...#sha256=<digest> and git+https://...@<commit>",
        )
    if not pin.search(url):
        raise PackagesError(
            f"packages.requirements: {line!r} is not pinned",
            hint="end it in @<commit of 40 digits>"
            if parts.scheme == "git+https"
            else "end it in #sha256=<digest>",
        )
