"""Runs and model versions in MLflow, each made once however often it is asked for."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tracklayer.errors import TrackingError
from tracklayer.tracking.folder import digest_of, send
from tracklayer.tracking.rest import RefusedError, Rest

CHAMPION = "champion"
PREVIOUS = "previous"
_RUN = "tracklayer.run"
_MODEL = "tracklayer.model"
_TABLES = "mlflow.loggedArtifacts"
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_BATCH = 100  # entries that one call may carry


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run in MLflow and its page."""

    id: str
    url: str


@dataclass(frozen=True, slots=True)
class Point:
    """One logged value; ``time`` in seconds since 1970."""

    step: int
    value: float
    time: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a project's model.

    ``digest`` is that of its files, ``source`` their place in MLflow, ``url`` its page.
    """

    project: str
    version: int
    run_id: str
    digest: str
    source: str
    url: str
    tags: Mapping[str, str]


class Tracking:
    """One MLflow server. A project is an experiment and a registered model of its name.

    Every method raises ``TrackingError`` if the server refuses or cannot be reached.

    :param uri: ``http://host:port``.
    """

    def __init__(self, uri: str) -> None:
        self._rest = Rest(uri)

    # Runs

    def start(
        self,
        project: str,
        run_id: str,
        *,
        parameters: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> TrackedRun:
        """Begin a run, or go on with the one that has this name already.

        :param run_id: the platform's name of the run; kept in the tag ``tracklayer.run``.
        :param parameters: hyperparameters; MLflow never changes one that was logged.
        """
        experiment = self._experiment(project)
        found = self._rest.post(
            "runs/search",
            experiment_ids=[experiment],
            filter=f"tags.`{_RUN}` = {_quoted(run_id)}",
            max_results=1,
        )
        now = int(time.time() * 1000)
        if runs := found.get("runs"):
            id_ = runs[0]["info"]["run_id"]
            self._rest.post("runs/update", run_id=id_, status="RUNNING")
        else:
            own = {_RUN: run_id, "mlflow.source.name": "tracklayer"}
            created = self._rest.post(
                "runs/create",
                experiment_id=experiment,
                start_time=now,
                run_name=run_id,
                tags=_pairs(own),
            )
            id_ = created["run"]["info"]["run_id"]
        for some in _batches(_pairs(parameters or {})):
            self._rest.post("runs/log-batch", run_id=id_, params=some)
        for some in _batches(_pairs(tags or {})):
            self._rest.post("runs/log-batch", run_id=id_, tags=some)
        return TrackedRun(id_, f"{self._rest.address}/#/experiments/{experiment}/runs/{id_}")

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log values of one step."""
        now = int(time.time() * 1000)
        values: list[dict[str, object]] = [
            {"key": name, "value": _number(value), "step": step, "timestamp": now}
            for name, value in metrics.items()
        ]
        for some in _batches(values):
            self._rest.post("runs/log-batch", run_id=run_id, metrics=some)

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of every metric of a run; may be infinite or NaN."""
        found = self._run(run_id)["data"].get("metrics", [])
        return {metric["key"]: _value(metric) for metric in found}

    def metric_history(self, run_id: str, metric: str) -> list[Point]:
        """Every value of one metric, in the order of the steps."""
        points: list[Point] = []
        token = ""
        while True:
            page = self._rest.get(
                "metrics/get-history",
                run_id=run_id,
                metric_key=metric,
                max_results=5000,
                **({"page_token": token} if token else {}),
            )
            points += [
                Point(int(m.get("step", 0)), _value(m), int(m["timestamp"]) / 1000)
                for m in page.get("metrics", [])
            ]
            token = page.get("next_page_token", "")
            if not token:
                return sorted(points, key=lambda point: (point.step, point.time))

    def finish(
        self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED"
    ) -> None:
        """End a run."""
        now = int(time.time() * 1000)
        self._rest.post("runs/update", run_id=run_id, status=status, end_time=now)

    def log_table(
        self, run_id: str, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Keep a table as the artifact ``<name>``, which MLflow's page shows as one.

        :param name: ends with ``.json``; the last table of a name counts.
        :param rows: of values that JSON has.
        """
        run = self._run(run_id)
        # As mlflow.log_table writes it, and marks it for the page.
        text = json.dumps({"columns": list(columns), "data": [list(row) for row in rows]})
        self._rest.upload(f"{_served(run['info']['artifact_uri'])}/{name}", text.encode())
        tables = json.loads(_tags(run["data"]).get(_TABLES, "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in tables:
            marks = _pairs({_TABLES: json.dumps([*tables, entry])})
            self._rest.post("runs/log-batch", run_id=run_id, tags=marks)

    def log_record(self, run_id: str, document: Mapping[str, Any]) -> None:
        """Keep the run record as the artifact ``record.json``; the last one counts."""
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        place = _served(self._run(run_id)["info"]["artifact_uri"])
        self._rest.upload(f"{place}/record.json", text.encode())

    # Models

    def log_model(self, run_id: str, folder: Path) -> str:
        """Keep a model folder as artifacts of a run, under ``model/<start of its digest>/``.

        The place goes with the content, so that a step that runs again can neither damage nor
        replace what a version already stands for.

        :returns: the digest of the folder's files, ``sha256:<hex>``.
        :raises ModelError: the folder is empty or missing, or has links in it.
        """
        digest = digest_of(folder)
        run = self._run(run_id)
        if _tags(run["data"]).get(_MODEL) != digest:
            send(self._rest, folder, f"{_served(run['info']['artifact_uri'])}/{_place(digest)}")
            self._rest.post("runs/log-batch", run_id=run_id, tags=_pairs({_MODEL: digest}))
        return digest

    def register(
        self, project: str, run_id: str, *, tags: Mapping[str, str] | None = None
    ) -> ModelVersion:
        """Make the run's model a version of the project's model, unless it is one already.

        :param tags: of a new version, beside ``tracklayer.run`` and ``tracklayer.model``.
        """
        run = self._run(run_id)
        own = _tags(run["data"])
        if _MODEL not in own:
            hint = "Its training step has to end well first."
            raise TrackingError(f"The run {run_id} has no model to register.", hint=hint)
        for version in self.versions(project, run_id=run_id):
            if version.digest == own[_MODEL]:
                return version
        try:
            self._rest.post("registered-models/create", name=project)
        except RefusedError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        marks = {**(tags or {}), _MODEL: own[_MODEL]} | ({_RUN: own[_RUN]} if _RUN in own else {})
        created = self._rest.post(
            "model-versions/create",
            name=project,
            source=f"{run['info']['artifact_uri'].rstrip('/')}/{_place(own[_MODEL])}",
            run_id=run_id,
            tags=_pairs(marks),
        )
        return self._version(created["model_version"])

    def versions(self, project: str, *, run_id: str | None = None) -> list[ModelVersion]:
        """The versions of a project's model, newest first; of one run only, if that is given."""
        clauses = [f"name = {_quoted(project)}"]
        clauses += [f"run_id = {_quoted(run_id)}"] if run_id else []
        query: dict[str, str | int] = {"filter": " AND ".join(clauses), "max_results": 1000}
        found: list[ModelVersion] = []
        while True:
            page = self._rest.get("model-versions/search", **query)
            found += [self._version(entry) for entry in page.get("model_versions", [])]
            if not page.get("next_page_token"):
                return sorted(found, key=lambda version: -version.version)
            query["page_token"] = page["next_page_token"]

    def promote(self, project: str, version: int) -> None:
        """Make a version the ``champion``; what was it before is then ``previous``."""
        old = self.champion(project)
        if old and old.version == version:
            return
        # The old one first: whoever is killed in between leaves a champion, and the next try ends.
        if old:
            self._alias(project, PREVIOUS, old.version)
        self._alias(project, CHAMPION, version)

    def champion(self, project: str) -> ModelVersion | None:
        """The version that is deployed; None if there is none."""
        return self.by_alias(project, CHAMPION)

    def by_alias(self, project: str, alias: str) -> ModelVersion | None:
        """The version that has an alias; None if there is none."""
        try:
            found = self._rest.get("registered-models/alias", name=project, alias=alias)
        except RefusedError as error:
            absent = error.code == "INVALID_PARAMETER_VALUE" and "not found" in error.message
            if absent or error.code == _MISSING:
                return None
            raise
        return self._version(found["model_version"])

    # What the above is made of

    def _experiment(self, project: str) -> str:
        for _ in range(2):
            try:
                found = self._rest.get("experiments/get-by-name", experiment_name=project)
                return str(found["experiment"]["experiment_id"])
            except RefusedError as error:
                if error.code != _MISSING:
                    raise
            try:
                return str(self._rest.post("experiments/create", name=project)["experiment_id"])
            except RefusedError as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise TrackingError(f"MLflow has an experiment {project} and does not show it.")

    def _run(self, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self._rest.get("runs/get", run_id=run_id)["run"]
        return run

    def _alias(self, project: str, alias: str, version: int) -> None:
        values = {"name": project, "alias": alias, "version": str(version)}
        self._rest.post("registered-models/alias", **values)

    def _version(self, found: dict[str, Any]) -> ModelVersion:
        tags = _tags(found)
        name, version = found["name"], int(found["version"])
        return ModelVersion(
            project=name,
            version=version,
            run_id=found.get("run_id", ""),
            digest=tags.get(_MODEL, ""),
            source=found["source"],
            url=f"{self._rest.address}/#/models/{name}/versions/{version}",
            tags=tags,
        )


def _tags(found: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in found.get("tags", [])}


def _place(digest: str) -> str:
    return f"model/{digest.removeprefix('sha256:')[:12]}"


def _served(uri: str) -> str:
    """The path of a place in the server's own artifact store.

    :raises TrackingError: the server keeps it elsewhere.
    """
    if not uri.startswith("mlflow-artifacts:/"):
        hint = "Start the server with --artifacts-destination, and without a default root."
        raise TrackingError(f"The MLflow server does not serve the artifacts at {uri}.", hint=hint)
    return uri.removeprefix("mlflow-artifacts:").strip("/")


def _quoted(text: str) -> str:
    if "'" in text or '"' in text:
        raise TrackingError(f"{text!r} has a quote in it, which MLflow cannot search for.")
    return f"'{text}'"


def _number(value: float) -> float | str:
    """As JSON has it: no number there is infinite or NaN (protobuf's JSON mapping)."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _value(metric: dict[str, Any]) -> float:
    """Back from JSON, and from the largest float, as which MLflow's database keeps infinity."""
    value = float(metric["value"])
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _pairs(values: Mapping[str, object]) -> list[dict[str, object]]:
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def _batches(entries: list[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    rest = iter(entries)
    while some := list(islice(rest, _BATCH)):
        yield some
