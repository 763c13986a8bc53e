"""Projects over HTTP: save one, list them, their history, the records of their runs.

A project is a DAG of the same name, and whoever may see or change that DAG may do so with the
project. The name is ``dag_id`` in the paths since Airflow's access check looks for that.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from tracklayer.errors import Problem, ProjectError, SpecError
from tracklayer.platform.check import problems
from tracklayer.projects import Commit, Repository, check_repository
from tracklayer.projects.check import SPEC_FILE
from tracklayer.projects.files import MIB
from tracklayer.settings import settings
from tracklayer.spec import Spec, loads
from tracklayer_ui.api.archive import MAX_BODY, TooLargeError, unpack
from tracklayer_ui.api.endpoints import Endpoint, endpoints

router = APIRouter(prefix="/projects")
_may_read = Depends(requires_access_dag("GET"))
_may_change = Depends(requires_access_dag("PUT"))


CommitId = Annotated[str, Path(pattern="^[0-9a-f]{40,64}$")]


class UnknownError(ProjectError):
    """There is no such project or run."""


class Project(BaseModel):
    """One project: is its newest spec right, and what serves it.

    ``commit`` is the repository's newest; ``problems`` is empty if the spec is valid there.
    """

    name: str
    valid: bool
    problems: list[Problem]
    description: str
    template: str | None
    endpoint: Endpoint


class ProjectDetails(Project):
    """Also the last commit that changed the project."""

    latest: Commit


class Saved(BaseModel):
    """The project's newest commit, when that was, and whether this request made it."""

    project: str
    commit: str
    time: datetime
    changed: bool


class Visible(BaseModel):
    """The commit that new runs of a project use, and whether it includes the one asked for."""

    version: str | None
    visible: bool


@router.get("")
def list_projects(user: GetUserDep) -> list[Project]:
    """All projects that the user may see, by name."""
    found = check_repository(_repository().projects())
    visible = get_auth_manager().filter_authorized_dag_ids(
        dag_ids=set(found), user=user, method="GET"
    )
    live = endpoints(sorted(visible))
    return [Project(**_describe(name, found[name], live[name])) for name in sorted(visible)]


@router.get("/{dag_id}", dependencies=[_may_read])
def get_project(dag_id: str) -> ProjectDetails:
    """One project."""
    found = check_repository(_known(dag_id))
    fields = _describe(dag_id, found[dag_id], endpoints([dag_id])[dag_id])
    return ProjectDetails(**fields, latest=_repository().history(dag_id)[0])


@router.put("/{dag_id}", dependencies=[_may_change])
async def save_project(dag_id: str, request: Request, user: GetUserDep) -> Saved:
    """Commit the project's folder, sent as tar, tar.gz or zip, in place of what there is."""
    body = await _body(request)
    return await run_in_threadpool(_save, dag_id, body, f"{_plain(user.get_name())} <>")


@router.get("/{dag_id}/history", dependencies=[_may_read])
def get_history(dag_id: str) -> list[Commit]:
    """The commits that changed a project, newest first."""
    _known(dag_id)
    return _repository().history(dag_id)


@router.get("/{dag_id}/commits/{commit}", dependencies=[_may_read])
def get_commit(dag_id: str, commit: CommitId, session: SessionDep) -> Visible:
    """Would a run that starts now use this commit of the project, or a later one?"""
    dag = session.get(DagModel, dag_id)
    version = None if dag is None or dag.is_stale else dag.bundle_version
    visible = version is not None and _repository().includes(version, commit)
    return Visible(version=version, visible=visible)


@router.get("/{dag_id}/runs/{run_id}/record", dependencies=[_may_read])
def get_record(dag_id: str, run_id: str) -> dict[str, Any]:
    """The record of one run: what went in, what each step did, what came out."""
    from tracklayer.tracking import RunRecord, run_folder

    _known(dag_id)
    folder = run_folder(settings().runs, dag_id, run_id)
    if not folder.is_dir():
        raise UnknownError(f"The project {dag_id} has no record of a run {run_id!r}.")
    document: dict[str, Any] = RunRecord(folder).document()
    return document


@functools.cache
def _repository() -> Repository:
    found = settings()
    return Repository(found.repository_url, branch=found.branch, cache=found.mirror)


def _known(name: str) -> dict[str, str]:
    """All projects, if ``name`` is one of them.

    :raises UnknownError: it is none.
    """
    texts = _repository().projects()
    if name not in texts:
        raise UnknownError(f"There is no project {name!r}.", hint="`tracklayer push` makes one.")
    return texts


def _describe(name: str, found: Spec | list[Problem], endpoint: Endpoint) -> dict[str, Any]:
    wrong = problems(found) if isinstance(found, Spec) else found
    return {
        "name": name,
        "valid": not wrong,
        "problems": wrong,
        "description": found.description if isinstance(found, Spec) else "",
        "template": found.template if isinstance(found, Spec) else None,
        "endpoint": endpoint,
    }


def _save(name: str, body: bytes, author: str) -> Saved:
    files = unpack(body)
    for text in (b"".join(file.read()) for file in files if file.path == SPEC_FILE):
        if found := problems(loads(text, f"{name}/{SPEC_FILE}")):
            raise SpecError(found)
    saved = _repository().save_files(name, files, author=author)
    if saved.changed:
        return Saved(project=name, commit=saved.commit, time=datetime.now(UTC), changed=True)
    last = _repository().history(name)[0]
    return Saved(project=name, commit=last.id, time=last.time, changed=False)


async def _body(request: Request) -> bytes:
    """The body, as long as it is not too large.

    :raises TooLargeError: it is.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise TooLargeError(f"The archive has more than {MAX_BODY // MIB} MiB.")
        parts.append(part)
    return b"".join(parts)


def _plain(name: str) -> str:
    """A user's name as git takes it in a commit."""
    return "".join(char for char in name if char.isprintable() and char not in "<>").strip()
