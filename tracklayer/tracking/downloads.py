"""How MLflow's server sends an artifact of the store: decrypted while it is sent.

MLflow 3.17 sends an artifact as a file that lies on the server's disk, or as a temporary copy in
plain. Neither is right here, so these take the places of the two functions that do it; they answer
the same, with the length to clients too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import Response
    from flask import Response as FlaskResponse
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

    from tracklayer.tracking.artifacts import StoreArtifactRepository

_MIB = 1024**2
_ROUTES = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")


def install(app: FastAPI) -> None:
    """Have MLflow's application send artifacts from the store, to its clients and on its pages."""
    from fastapi.routing import APIRoute

    from tracklayer.tracking.artifacts import StoreArtifactRepository

    for prefix in _ROUTES:  # the first route that fits answers
        route = APIRoute(f"{prefix}/artifacts/{{path:path}}", _send_to_client, methods=["GET"])
        app.router.routes.insert(0, route)

    handlers = _untyped("mlflow.server.handlers")
    elsewhere = handlers._send_artifact  # an experiment can have a place of its own

    def send_to_page(repository: ArtifactRepository, path: str) -> FlaskResponse:
        if isinstance(repository, StoreArtifactRepository):
            return _send_to_page(repository, path)
        answer: FlaskResponse = elsewhere(repository, path)
        return answer

    handlers._send_artifact = send_to_page


async def _send_to_client(path: str) -> Response:
    from fastapi.responses import JSONResponse, StreamingResponse
    from mlflow.exceptions import MlflowException

    handlers, uri = _untyped("mlflow.server.handlers"), _untyped("mlflow.utils.uri")
    try:
        place = uri.validate_path_is_safe(path)
        repository = handlers._get_artifact_repo_mlflow_artifacts()
        blob, stream = await asyncio.to_thread(repository.read, place)
    except MlflowException as error:
        answer: Any = error
        content = json.loads(answer.serialize_as_json())
        return JSONResponse(content, status_code=answer.get_http_status_code())
    headers = _headers(place) | {"Content-Length": str(blob.size)}
    return StreamingResponse(_parts(stream), headers=headers)


def _send_to_page(repository: StoreArtifactRepository, path: str) -> FlaskResponse:
    from flask import current_app, request
    from werkzeug.wsgi import wrap_file

    blob, stream = repository.read(path)
    body = wrap_file(request.environ, stream, buffer_size=_MIB)  # closes it in the end
    response: FlaskResponse = current_app.response_class(body, direct_passthrough=True)
    response.headers.update(_headers(path))
    response.content_length = blob.size
    response.set_etag(blob.digest)
    response.cache_control.no_cache = True
    # A page may ask for a range, as to show a video from its middle.
    response.make_conditional(request.environ, accept_ranges=True, complete_length=blob.size)
    return response


def _headers(path: str) -> dict[str, str]:
    """Always to be saved, never to be shown: a page in an artifact must not run as the server's."""
    handlers, types = _untyped("mlflow.server.handlers"), _untyped("mlflow.utils.mime_type_utils")
    name = PurePosixPath(path).name
    return {
        "Content-Type": types._guess_mime_type(name),
        "Content-Disposition": handlers._content_disposition_attachment(name),
        "X-Content-Type-Options": "nosniff",
    }


def _untyped(module: str) -> Any:
    """A module of MLflow, which declares the types of few of its functions."""
    return import_module(module)


def _parts(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while part := stream.read(_MIB):
            yield part
