"""A spec file to a spec: everything that is wrong with it at once, or the spec."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tracklayer.errors import Problem, SpecError
from tracklayer.spec.document import MAX_BYTES, Document, parse
from tracklayer.spec.explain import explain
from tracklayer.spec.models import Spec

M = TypeVar("M", bound=BaseModel)


def load(path: Path) -> Spec:
    """Read a ``tracklayer.yaml``.

    :raises SpecError: there is no such file, or it is wrong; with every problem, in file order.
    """
    return loads(read_text(path), str(path))


def loads(text: str | bytes, file: str = "tracklayer.yaml") -> Spec:
    """Read a spec from memory; ``file`` is its name in problems.

    :raises SpecError: it is wrong; with every problem, in file order.
    """
    return validated(parse(text, file), Spec)


def read_text(path: Path) -> bytes:
    """The bytes of a file, and no more of them than may be read.

    :raises SpecError: there is no such file, or it cannot be read.
    """
    try:
        if path.is_file():  # and not a folder, or a pipe that would never end
            with path.open("rb") as stream:
                return stream.read(MAX_BYTES + 1)
        message = "this is no file" if path.exists() else "there is no such file"
    except (OSError, ValueError) as error:
        message = f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
    raise SpecError([Problem(str(path), 1, 1, message)])


def validated(document: Document, model: type[M]) -> M:
    """The document as a model, which is told where its parts were written.

    :raises SpecError: with every problem, in file order.
    """
    problems = list(document.problems.values())
    try:
        result = model.model_validate(document.data, context=document.positions)
    except ValidationError as error:
        problems += explain(error, model, document)
    if problems:
        problems.sort(key=lambda problem: (problem.line, problem.column))
        raise SpecError(problems)
    return result
