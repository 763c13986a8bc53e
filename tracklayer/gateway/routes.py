"""Who answers for which project, and the file that keeps it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from tracklayer.access import Project
from tracklayer.errors import PlatformError, first_problem
from tracklayer.files import write_text
from tracklayer.sockets import LONGEST


def _socket_path(path: Path) -> Path:
    if not path.is_absolute() or len(os.fsencode(path)) > LONGEST or "\0" in str(path):
        raise ValueError(f"must be the absolute path of a unix socket, {LONGEST} bytes at most")
    return path


def _distinct(paths: list[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))


CHAMPION = "champion"
"""The alias of the version that answers users, whatever is being tried beside it."""

Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Version = Annotated[int, Field(ge=0, lt=2**31)]
SocketPath = Annotated[Path, AfterValidator(_socket_path)]
Servers = Annotated[list[SocketPath], Field(min_length=1), AfterValidator(_distinct)]
Access = Literal["open", "keys"]


class Route(BaseModel):
    """Which servers answer for a project, and which version gets which share.

    :param versions: every version that is up, with the unix sockets of its model servers; each
        answers at ``/<project>@<version>/``.
    :param weights: version -> share of ``/<project>/``, in whole numbers, one above 0 at least.
    :param aliases: name -> version; it answers at ``/<project>@<alias>/``.
    :param access: ``keys``: every caller needs one. None: as the project had it before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    versions: Annotated[dict[Version, Servers], Field(min_length=1)]
    weights: dict[Version, Annotated[int, Field(ge=0, le=1_000_000)]]
    aliases: dict[Alias, Version] = {}
    access: Access | None = None

    @classmethod
    def of(cls, version: int, backends: Sequence[Path]) -> Route:
        """One version that gets everything, the champion."""
        return cls(
            versions={version: list(backends)}, weights={version: 1}, aliases={CHAMPION: version}
        )

    @property
    def version(self) -> int:
        """The version with the greatest share; among equals the champion, then the oldest."""
        champion = self.aliases.get(CHAMPION)
        return min(self.weights, key=lambda v: (-self.weights[v], v != champion, v))

    @property
    def backends(self) -> list[Path]:
        """The servers of :attr:`version`."""
        return self.versions[self.version]

    @model_validator(mode="after")
    def _is_whole(self) -> Route:
        for what, named in (("weights", self.weights), ("aliases", self.aliases.values())):
            if unknown := [version for version in named if version not in self.versions]:
                up = ", ".join(map(str, self.versions))
                raise ValueError(f"{what}: version {unknown[0]} has no servers; there are {up}")
        if not any(self.weights.values()):
            raise ValueError("weights: one version needs a share above 0")
        return self


PROJECT: TypeAdapter[str] = TypeAdapter(Project)
TABLE: TypeAdapter[dict[str, Route]] = TypeAdapter(dict[Project, Route])


def load(file: Path) -> dict[str, Route]:
    """The routes in ``file``; none if there is no such file yet.

    :raises PlatformError: the file is damaged or cannot be read; it stays as it is.
    """
    try:
        return TABLE.validate_json(_of_one_version(file.read_bytes()), strict=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PlatformError(f"cannot read the routes in {file}: {error.strerror}") from error
    except ValidationError as error:
        raise PlatformError(
            f"the routes in {file} are damaged: {first_problem(error)}",
            hint="Mend the file. Or move it away: the gateway then starts without routes, and "
            "every project is unreachable until it is deployed again.",
        ) from error


def _of_one_version(text: bytes) -> bytes:
    """Files written before there were weights have one version and its servers for a project."""
    try:
        found = json.loads(text)
    except ValueError:
        return text  # the validation says what is wrong with it
    for project, route in found.items() if isinstance(found, dict) else ():
        if isinstance(route, dict) and route.keys() == {"version", "backends"}:
            version = route["version"]
            found[project] = {
                "versions": {str(version): route["backends"]},
                "weights": {str(version): 1},
                "aliases": {CHAMPION: version},
            }
    return json.dumps(found).encode()


def save(file: Path, routes: dict[str, Route]) -> None:
    """Replace ``file``, owner-only.

    :raises PlatformError: it cannot be written; the old file is whole.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(file, TABLE.dump_json(routes, indent=2).decode())
    except OSError as error:
        raise PlatformError(f"cannot write the routes to {file}: {error.strerror}") from error
