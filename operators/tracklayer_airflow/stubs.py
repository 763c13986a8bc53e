"""From the specs of one commit to the DAG files that Airflow parses: one a project."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from tracklayer.errors import Problem
from tracklayer.platform.check import problems as platform_problems
from tracklayer.projects import Repository, check_repository
from tracklayer.projects.check import SPEC_FILE
from tracklayer.spec import Spec

_DAG = '''\
"""The Airflow DAG of the project {name}, written by Tracklayer from this spec.

The files of the project: {content}
"""

from tracklayer_airflow.dag import build_dag

SPEC = """\\
{text}"""

dag = build_dag(SPEC, {file!r}{pinned})
'''

# What Python would not give back from between triple quotes: its own signs, and the characters that
# are taken for line ends or cannot be written.
_NOT_AS_IT_IS = re.compile(
    r'\\|"(?="")|"{1,2}\Z'
    r"|[^\n\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\U0010ffff]"
)

_ERROR = '''\
"""No Airflow DAG: what is wrong with the spec of a project, for the list of import errors."""

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
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            partial = path.with_suffix(".partial")
            partial.write_text(content, encoding="utf-8")
            partial.rename(path)


def _stubs(repository: Repository, commit: str) -> Iterator[tuple[str, str]]:
    texts, contents = repository.projects(commit), repository.contents(commit)
    for folder, found in check_repository(texts).items():
        problems = platform_problems(found) if isinstance(found, Spec) else found
        if not problems:
            yield f"{_file_name(folder)}.py", dag_stub(folder, texts[folder], contents[folder])
            continue
        yield f"{_file_name(folder)}__error.py", _error_stub(problems)
        if _is_name(folder) and (
            valid := repository.last_valid(folder, commit, lambda spec: not platform_problems(spec))
        ):
            pinned = dag_stub(folder, valid[1], valid[0], commit=valid[0])
            yield f"{_file_name(folder)}.py", pinned


def dag_stub(project: str, text: str, content: str, *, commit: str | None = None) -> str:
    """The DAG file of one project. It changes when the project does: by that Airflow learns that
    runs are to use a later commit.

    :param text: the spec.
    :param content: names all the files of the project as they are.
    :param commit: where the project's files are, if that is not the version of the bundle.
    """
    quoted = _NOT_AS_IT_IS.sub(_escaped, text)
    pinned = f", commit={commit!r}" if commit else ""
    file = f"{project}/{SPEC_FILE}"
    return _DAG.format(name=project, content=content, text=quoted, file=file, pinned=pinned)


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"\\{sign}" if sign in '\\"' else f"\\u{ord(sign):04x}" for sign in match[0])


def _is_name(folder: str) -> bool:
    return re.fullmatch("[a-z][a-z0-9-]{0,62}", folder) is not None


def _file_name(folder: str) -> str:
    """One that no other folder has, and that no import statement can name.

    Airflow has the folder of these files on its ``sys.path``: a project called ``tensorflow`` is
    not to be what somebody's ``import tensorflow`` finds.
    """
    if _is_name(folder):
        return f"project-{folder}"
    digest = hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()[:12]
    return f"project-{re.sub('[^A-Za-z0-9-]', '_', folder)[:40]}_{digest}"


def _error_stub(problems: list[Problem]) -> str:
    # Airflow's list shows the last lines of a trace best, so that each problem is one line. What a
    # user chose comes in only as a literal of plain ASCII.
    flat = [
        Problem(_storable(found.file), found.line, found.column, _storable(_one_line(found)))
        for found in problems
    ]
    return _ERROR.format(problems="\n".join(f"        {found!a}," for found in flat))


def _storable(text: str) -> str:
    # A name that is not UTF-8 has lone surrogates, which no database takes.
    return text.encode(errors="backslashreplace").decode()


def _one_line(found: Problem) -> str:
    return f"{found.message}. {found.hint}" if found.hint else found.message
