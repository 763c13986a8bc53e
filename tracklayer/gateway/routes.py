"""Who answers for which project, and the file that keeps it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from tracklayer.errors import PlatformError
from tracklayer.files import write_text
from tracklayer.sockets import LONGEST


def _socket_path(path: Path) -> Path:
    if not path.is_absolute() or len(os.fsencode(path)) > LONGEST or "\0" in str(path):
        raise ValueError(f"must be the absolute path of a unix socket, {LONGEST} bytes at most")
    return path


def _distinct(paths: list[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))


Project = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
SocketPath = Annotated[Path, AfterValidator(_socket_path)]


class Route(BaseModel):
    """The live version of a project and the unix sockets of its model servers, one at least."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int = Field(ge=0)
    backends: Annotated[list[SocketPath], Field(min_length=1), AfterValidator(_distinct)]


PROJECT: TypeAdapter[str] = TypeAdapter(Project)
TABLE: TypeAdapter[dict[str, Route]] = TypeAdapter(dict[Project, Route])


def load(file: Path) -> dict[str, Route]:
    """The routes in ``file``; none if there is no such file yet.

    :raises PlatformError: the file is damaged or cannot be read; it stays as it is.
    """
    try:
        return TABLE.validate_json(file.read_bytes(), strict=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PlatformError(f"cannot read the routes in {file}: {error.strerror}") from error
    except ValidationError as error:
        raise PlatformError(
            f"the routes in {file} are damaged: {problem(error)}",
            hint="Mend the file. Or move it away: the gateway then starts without routes, and "
            "every project is unreachable until it is deployed again.",
        ) from error


def save(file: Path, routes: dict[str, Route]) -> None:
    """Replace ``file``, owner-only.

    :raises PlatformError: it cannot be written; the old file is whole.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(file, TABLE.dump_json(routes, indent=2).decode())
    except OSError as error:
        raise PlatformError(f"cannot write the routes to {file}: {error.strerror}") from error


def problem(error: ValidationError) -> str:
    """The first problem of a validation, in one line, without pydantic's addresses."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
