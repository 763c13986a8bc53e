"""From an endpoint back to where everything in it came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tracklayer.errors import ModelError
from tracklayer.tracking.folder import listed
from tracklayer.tracking.rest import RefusedError, Rest
from tracklayer.tracking.tracking import ModelVersion, Tracking

Document = dict[str, Any]
_ARTIFACTS = "mlflow-artifacts:"


def lineage(
    uri: str,
    project: str,
    *,
    live: int | None = None,
    version: int | None = None,
    record: Callable[[str], Document | None] = lambda _run: None,
) -> Document:
    """What a version of a project's model was made of.

    Model versions and the record of the run that made one are read from MLflow, which keeps them
    when the run's own folders are gone. A run that did not end well has logged no record there.

    :param uri: of the MLflow server.
    :param live: the version that answers at the endpoint.
    :param version: default: the live one, else the champion.
    :param record: the platform's record of a run that MLflow has none of.
    :returns: ``version``, ``model``, ``run``, ``project``, ``packages``, ``target``, ``sources``;
        what is not known is None or empty.
    :raises ModelError: there is no such version, or none that is live or champion.
    :raises TrackingError: the server cannot be reached.
    """
    tracking, rest = Tracking(uri), Rest(uri)
    champion = tracking.champion(project)
    found = _version(tracking.versions(project), project, version or live, champion)
    run = found.tags.get("tracklayer.run", "")
    document = _logged(rest, found) or record(run) or {}
    steps: Mapping[str, Any] = document.get("steps", {})
    trained = steps.get("train", {})
    packages = steps.get("packages", {})
    return {
        "version": {
            "number": found.version,
            "live": found.version == live,
            "champion": champion is not None and found.version == champion.version,
            "url": found.url,
        },
        "model": _model(rest, found, steps),
        "run": {
            "id": run,
            "mlflow": found.run_id,
            "url": trained.get("mlflow_url"),
            "hyperparameters": trained.get("hyperparameters", {}),
            "metrics": steps.get("evaluate", {}).get("metrics", {}),
        },
        "project": {
            "name": project,
            "commit": document.get("commit") or found.tags.get("tracklayer.commit"),
            "spec": f"{project}/tracklayer.yaml",
        },
        "packages": {
            "digest": packages.get("digest"),
            "lock": packages.get("lock", "").splitlines(),
        },
        "target": steps.get("provision", {}).get("target"),
        "sources": [
            {
                "name": data["source"],
                "handle": data["handle"],
                "revision": data["revision"],
                "manifest": data["manifest"],
                "allowed": data.get("allowed", []),
                "files": data["files"],
            }
            for data in steps.values()
            if "handle" in data
        ],
    }


def _version(
    known: list[ModelVersion], project: str, wanted: int | None, champion: ModelVersion | None
) -> ModelVersion:
    """The version that is meant.

    :raises ModelError: there is none.
    """
    if wanted is None:
        if champion:
            return champion
        deploys = f"A run that ends well deploys one: `tracklayer run {project} --follow`."
        raise ModelError(f"No version of {project} is served yet, and none was.", hint=deploys)
    for version in known:
        if version.version == wanted:
            return version
    numbers = ", ".join(str(version.version) for version in known[:20])
    hint = f"There are: {numbers}." if known else f"`tracklayer run {project}` makes the first."
    raise ModelError(f"There is no version {wanted} of {project}.", hint=hint)


def _logged(rest: Rest, version: ModelVersion) -> Document | None:
    """The run record that was logged to MLflow when the run had ended well."""
    try:
        place = rest.get("runs/get", run_id=version.run_id)["run"]["info"]["artifact_uri"]
        path = f"{_path(place)}/record.json"
        document: Document = json.loads(b"".join(rest.download(path)))
    except RefusedError as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return document


def _model(rest: Rest, version: ModelVersion, steps: Mapping[str, Any]) -> Document:
    """Digest, format and files of a version; without a record MLflow still has names and sizes."""
    made = steps.get("train", {}).get("model") or steps.get("fetch-model") or {}
    files = made.get("files") or [
        {"path": path, "size": size, "digest": None}
        for path, size in sorted(listed(rest, _path(version.source)).items())
    ]
    manifest = version.tags.get("tracklayer.manifest") or made.get("manifest")
    return {
        "digest": version.digest,
        "manifest": manifest,
        "format": made.get("format"),
        "files": files,
    }


def _path(uri: str) -> str:
    return uri.removeprefix(_ARTIFACTS).strip("/")
