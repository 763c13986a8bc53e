"""From the specs of one commit to the DAG files that Airflow parses: one a project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tracklayer.errors import Problem, SpecError
from tracklayer.projects import Repository, check_repository
from tracklayer.projects.check import SPEC_FILE
from tracklayer.spec import Spec, loads
from tracklayer_airflow.plan import plan

_DAG = '''\
"""The Airflow DAG of the project {name}, written by Tracklayer from this spec.

The files of the project: {content}
"""

from tracklayer_airflow.dag import build_dag

SPEC = """\\
{text}"""

dag = build_dag(SPEC, {file!r}{pinned})
'''

_ERROR = '''\
"""No Airflow DAG: what is wrong with {file}, for the list of import errors."""

from tracklayer.errors import Problem, SpecError

raise SpecError(
    [
{problems}
    ]
)
'''


def write_stubs(repository: Repository, commit: str, folder: Path) -> None:
    """Make ``folder`` hold the DAG files of one commit and nothing else.

    A file whose content stays is not touched, so that Airflow does not parse it again. A project
    whose spec is broken gets a file that says so and keeps the DAG of its last valid commit.

    :raises ProjectError: the commit cannot be read.
    """
    wanted = dict(_stubs(repository, commit))
    for path in folder.glob("*.py"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text() != content:
            partial = path.with_suffix(".partial")
            partial.write_text(content)
            partial.rename(path)


def _stubs(repository: Repository, commit: str) -> Iterator[tuple[str, str]]:
    texts, contents = repository.projects(commit), repository.contents(commit)
    for folder, found in check_repository(texts).items():
        problems = _plan_problems(found) if isinstance(found, Spec) else found
        if not problems:
            yield f"{folder}.py", dag_stub(folder, texts[folder], contents[folder])
            continue
        yield f"{re.sub('[^A-Za-z0-9_-]', '_', folder)}__error.py", _error_stub(folder, problems)
        valid = repository.last_valid(folder, commit)
        if valid and not _plan_problems(loads(valid[1], f"{folder}/{SPEC_FILE}")):
            yield f"{folder}.py", dag_stub(folder, valid[1], valid[0], commit=valid[0])


def dag_stub(project: str, text: str, content: str, *, commit: str | None = None) -> str:
    """The DAG file of one project. It changes when the project does: by that Airflow learns that
    runs are to use a later commit.

    :param text: the spec.
    :param content: names all the files of the project as they are.
    :param commit: where the project's files are, if that is not the version of the bundle.
    """
    quoted = text.replace("\\", "\\\\").replace('"', '\\"') if _needs_quoting(text) else text
    pinned = f", commit={commit!r}" if commit else ""
    file = f"{project}/{SPEC_FILE}"
    return _DAG.format(name=project, content=content, text=quoted, file=file, pinned=pinned)


def _needs_quoting(text: str) -> bool:
    return "\\" in text or '"""' in text or text.endswith('"')


def _error_stub(folder: str, problems: list[Problem]) -> str:
    lines = "\n".join(f"        {problem!r}," for problem in problems)
    return _ERROR.format(
        file=f"{folder}/{SPEC_FILE}".encode("ascii", "replace").decode(), problems=lines
    )


def _plan_problems(spec: Spec) -> list[Problem]:
    try:
        plan(spec)
    except SpecError as error:
        return error.problems
    return []
