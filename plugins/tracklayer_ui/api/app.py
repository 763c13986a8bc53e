"""The FastAPI application: its routers, who may come in, errors as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from tracklayer.errors import ProjectError, SpecError, TracklayerError
from tracklayer.projects.git import GitError
from tracklayer_ui.api import platform, projects
from tracklayer_ui.api.archive import ArchiveError, TooLargeError

# The first that fits; what is not here is a fault of the platform, not of the request.
_STATUS: tuple[tuple[type[TracklayerError], int], ...] = (
    (SpecError, 422),
    (TooLargeError, 413),
    (ArchiveError, 400),
    (projects.UnknownError, 404),
    (GitError, 502),
    (ProjectError, 400),
)


def create_app() -> FastAPI:
    """The application. Airflow mounts it without authentication: that is done here."""
    # The generated pages could be read by anybody, since they are routes outside of any router.
    app = FastAPI(title="Tracklayer", docs_url=None, redoc_url=None, openapi_url=None)
    for router in (platform.router, projects.router):
        app.include_router(router, dependencies=[Depends(get_user)])
    app.add_exception_handler(TracklayerError, _answer)
    return app


def _answer(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TracklayerError)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse(document(error), status_code=status)


def document(error: TracklayerError) -> dict[str, Any]:
    """An error as JSON: ``error``, ``hint``, ``kind`` and for a spec ``problems``."""
    found: dict[str, Any] = {
        "error": error.message,
        "hint": error.hint,
        "kind": _public_kind(type(error)).__name__,
    }
    if isinstance(error, SpecError):
        found["problems"] = [dataclasses.asdict(problem) for problem in error.problems]
    return found


def _public_kind(kind: type[TracklayerError]) -> type[TracklayerError]:
    """The class of the error tree that a private subclass belongs to."""
    return next(base for base in kind.__mro__ if base.__module__ == TracklayerError.__module__)
