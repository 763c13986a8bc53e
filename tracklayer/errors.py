"""Every error a user can meet, in one tree.

::

    TracklayerError            exit code 1
    ├── SpecError              2   the spec (or a template) is wrong; carries every located problem
    ├── ProjectError           3   the repository of projects: no such project, a conflict, no git
    ├── SourceError            4   a source cannot be resolved, fetched or trusted
    ├── StoreError             5   the artifact store: missing, damaged, disk full
    ├── PackagesError          6   requirements cannot be resolved or installed
    ├── ToolError              7   a program that we drive failed
    │   ├── TerraformError
    │   └── AnsibleError
    ├── JobError               8   the user's training code failed
    │   ├── JobFailed              it exited with a code other than 0
    │   ├── JobTimeout             it passed its time limit
    │   ├── JobOutOfMemory         it passed its memory limit
    │   └── JobCancelled           somebody cancelled it
    ├── ModelError             9   no model, or one that must not be loaded
    ├── MetricError           10   a metric is missing, not a number, or not good enough
    ├── ServiceError          11   a model server or the gateway did not become right
    ├── TrackingError         12   the tracking server refused or cannot be reached
    └── PlatformError         13   the platform itself: a port in use, a home that cannot be written

An error is a message for the person who caused it or can mend it: what happened, where, and
in ``hint`` what to do. Errors of libraries are mapped to these where they enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class TracklayerError(Exception):
    """Base of all errors that are meant for a user.

    :param message: what happened and where, one sentence or a few lines.
    :param hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """One located mistake in a file. ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.message}"
        return f"{text}\n  {self.hint}" if self.hint else text


class SpecError(TracklayerError):
    """A spec or a template is wrong. ``problems`` holds all that were found, in file order."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


class ProjectError(TracklayerError):
    """The repository of projects refused something."""

    exit_code = 3


class SourceError(TracklayerError):
    """A source cannot be resolved, fetched or trusted."""

    exit_code = 4


class StoreError(TracklayerError):
    """The artifact store lacks something, is damaged or is full."""

    exit_code = 5


class PackagesError(TracklayerError):
    """Requirements cannot be resolved or installed."""

    exit_code = 6


class ToolError(TracklayerError):
    """A program that the platform drives failed."""

    exit_code = 7


class TerraformError(ToolError):
    """Terraform failed; the message carries its own diagnosis."""


class AnsibleError(ToolError):
    """A playbook failed; the message names the task and the host."""


class JobError(TracklayerError):
    """The user's job did not do what it should."""

    exit_code = 8


class JobFailed(JobError):
    """The job exited with a code other than 0."""


class JobTimeout(JobError):
    """The job passed its time limit and was ended."""


class JobOutOfMemory(JobError):
    """The job passed its memory limit and was ended."""


class JobCancelled(JobError):
    """Somebody cancelled the job."""


class ModelError(TracklayerError):
    """There is no model, or one of a format that must not be loaded."""

    exit_code = 9


class MetricError(TracklayerError):
    """A metric is missing, not a number, or not good enough."""

    exit_code = 10


class ServiceError(TracklayerError):
    """A model server or the gateway did not become ready and right."""

    exit_code = 11


class TrackingError(TracklayerError):
    """The tracking server refused a call or cannot be reached."""

    exit_code = 12


class PlatformError(TracklayerError):
    """The platform cannot start or go on."""

    exit_code = 13


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation, in one line, without pydantic's addresses."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
