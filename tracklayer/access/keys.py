"""The callers' keys: made once, kept as digests.

A key is 256 random bits: nobody can guess one, so that a plain SHA-256 of it is enough to keep.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tracklayer.errors import PlatformError, first_problem
from tracklayer.files import locked, write_text, writing

PREFIX = "tlk_"
"""How every key begins, so that one that was published by mistake is found."""

ANONYMOUS = "anonymous"
"""Whoever asks without a key."""

PLATFORM = "platform"
"""Who asks through the administration socket."""

NAME = r"^[a-z][a-z0-9-]{0,62}$"
"""Of a project."""

Project = Annotated[str, StringConstraints(pattern=NAME)]
Caller = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]

_ALLOWED = {
    "name": (
        "the name of a caller",
        "It has a-z, 0-9, `.`, `_` and `-`, begins with a letter or digit, and is 63 long at most.",
    ),
    "projects": ("the name of a project", "`tracklayer status` lists the projects."),
}


class Key(BaseModel):
    """What is kept of a key.

    :param name: of the caller.
    :param digest: SHA-256 of the key, in hexadecimal.
    :param projects: that it opens; ``*``: all, also those to come.
    :param rate: requests a second in the long run; None: no limit.
    :param burst: requests at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Caller
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    projects: Literal["*"] | Annotated[list[Project], Field(min_length=1)] = "*"
    created: AwareDatetime
    expires: AwareDatetime | None = None
    rate: Annotated[float, Field(gt=0, le=1e9)] | None = None
    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None

    def opens(self, project: str) -> bool:
        """Is the project one of its own?"""
        return self.projects == "*" or project in self.projects

    def expired(self, now: float) -> bool:
        """Is it too old at this time, in seconds since 1970?"""
        return self.expires is not None and self.expires.timestamp() <= now


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[Key] = []


def digest(key: bytes) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key).hexdigest()


class Keys:
    """The keys in ``file``, which only its owner can read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def all(self) -> list[Key]:
        """Every key that was made and not revoked, the oldest first.

        :raises PlatformError: the file is damaged or cannot be read.
        """
        try:
            return _File.model_validate_json(self.file.read_bytes()).keys
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PlatformError(f"cannot read the keys in {self.file}: {error.strerror}") from error
        except ValidationError as error:
            # Without the cause, which shows what the file says.
            raise PlatformError(
                f"the keys in {self.file} are damaged: {first_problem(error)}",
                hint="Mend the file, or move it away: then no caller has a key, until you make new "
                "ones with `tracklayer keys create`.",
            ) from None

    def create(
        self,
        name: str,
        *,
        projects: list[str] | None = None,
        lifetime: timedelta | None = None,
        rate: float | None = None,
        burst: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key for a caller.

        :param projects: that it opens; None: all.
        :returns: what is kept, and the key itself, which nobody can ask for again.
        :raises PlatformError: the caller has a key, or something is not as it must be.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        created = datetime.now(UTC)
        if name in (ANONYMOUS, PLATFORM):
            raise PlatformError(f"No caller can be called {name!r}: it means something else.")
        try:
            key = Key(
                name=name,
                digest=digest(secret.encode()),
                projects=sorted(set(projects)) if projects else "*",
                created=created,
                expires=None if lifetime is None else created + lifetime,
                rate=rate,
                burst=burst or (max(1, round(rate)) if rate else None),
            )
        except ValidationError as error:
            wrong = error.errors()[-1]  # of a union, the one for the more that is allowed
            if allowed := _ALLOWED.get(str(wrong["loc"][0])):
                what, hint = allowed
                raise PlatformError(
                    f"No key for {name!r}: {wrong['input']!r} cannot be {what}.", hint=hint
                ) from None
            raise PlatformError(f"No key for {name!r}: {first_problem(error)}") from None
        self._change(lambda keys: [*_without(keys, name, wanted=False), key])
        return key, secret

    def revoke(self, name: str) -> None:
        """Take a caller's key away; it is refused from now on.

        :raises PlatformError: the caller has none.
        """
        self._change(lambda keys: _without(keys, name, wanted=True))

    def _change(self, change: Callable[[list[Key]], list[Key]]) -> None:
        with writing(self.file.parent):
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.file.with_name(".keys.lock")):
                keys = _File(keys=change(self.all()))
                write_text(self.file, keys.model_dump_json(indent=1, exclude_none=True))


def _without(keys: list[Key], name: str, *, wanted: bool) -> list[Key]:
    """:raises PlatformError: the caller has a key and shall not, or the other way round."""
    left = [key for key in keys if key.name != name]
    if wanted and len(left) == len(keys):
        known = ", ".join(key.name for key in keys) or "nobody"
        raise PlatformError(f"{name!r} has no key.", hint=f"These have one: {known}.")
    if not wanted and len(left) < len(keys):
        raise PlatformError(
            f"{name!r} has a key already.",
            hint=f"Choose another name, or revoke it first: `tracklayer keys revoke {name}`.",
        )
    return left
