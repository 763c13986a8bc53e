"""Steps that prepare the packages and train the model."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from tracklayer.settings import settings
from tracklayer_airflow.links import MlflowRunLink
from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.runtimes import Job, ProcessRuntime
    from tracklayer.store import Manifest
    from tracklayer.tracking import RunRecord, TrackedRun


class PackagesOperator(StepOperator):
    """Turns the requirements into a lock and the lock into an environment, cached by content."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:  # noqa: ARG002
        from tracklayer.packages import prepare

        wanted = self.spec.packages
        environment = prepare(
            list(wanted.requirements) if wanted else [],
            python=wanted.python if wanted else "3.11",
            environments=settings().environments,
            torch_backend=settings().torch_backend,
            on_line=self.line_logger(),
        )
        self.log.info(
            "Environment %s, %s", environment.digest[:12], "cached" if environment.cached else "new"
        )
        return {
            "python": str(environment.python),
            "lock": environment.lock,
            "digest": environment.digest,
            "cached": environment.cached,
        }


class TrainOperator(StepOperator):
    """Runs the training script as a job that outlives this task, and adopts it on the next try."""

    operator_extra_links: tuple[BaseOperatorLink, ...] = (MlflowRunLink(),)
    _runtime: ProcessRuntime | None = None
    _job: Job | None = None
    _run = ""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        from tracklayer.errors import JobCancelled, SpecError, TracklayerError
        from tracklayer.runtimes import ProcessRuntime
        from tracklayer.serving import recognise
        from tracklayer.spec import check_project

        assert self.spec.train is not None
        declared = self.spec.train.hyperparameters
        # A run's configuration may have more, such as that it is to be offline.
        hyperparameters = {
            name: value for name, value in context["params"].items() if name in declared
        }
        run = self.tracking().start(
            self.spec.name,
            context["run_id"],
            parameters=hyperparameters,
            tags={"tracklayer.commit": self.pinned_commit(context)},
        )
        MlflowRunLink().push(context, run.url)
        self.log.info("MLflow run: %s", run.url)
        self._run = run.id
        self._runtime, self._job = (
            ProcessRuntime(),
            self._describe(context, record, run, hyperparameters),
        )
        try:
            # Who pushes with git has had nobody look for the files that the spec names.
            if problems := check_project(self.spec, self.project_folder(context)):
                raise SpecError(problems)
            result = self._runtime.run(self._job, on_line=self._listener(run))
            model = recognise(result.model)
            stored = self._store(context, result.model)
            self.tracking().log_model(run.id, result.model)
        except TracklayerError as error:
            cancelled = isinstance(error, JobCancelled)
            self.tracking().finish(run.id, "KILLED" if cancelled else "FAILED")
            raise
        return {
            "mlflow_run": run.id,
            "mlflow_url": run.url,
            "hyperparameters": hyperparameters,
            "seconds": (result.ended - result.started).total_seconds(),
            "peak_memory": result.peak_memory,
            "attempt": result.attempt,
            "model": {
                "manifest": stored.digest,
                "format": model.name,
                "files": [file.model_dump(exclude={"executable"}) for file in stored.files],
            },
        }

    def on_kill(self) -> None:
        """End the job with its whole process tree."""
        from tracklayer.errors import TrackingError

        if self._runtime and self._job:
            self._runtime.cancel(self._job)
            # Airflow gives this task five seconds, and the job may take longer to end.
            with suppress(TrackingError):
                self.tracking().finish(self._run, "KILLED")

    def _describe(
        self, context: Context, record: RunRecord, run: TrackedRun, hyperparameters: dict[str, Any]
    ) -> Job:
        from tracklayer.runtimes import Job

        train = self.spec.train
        assert train is not None
        limits = train.resources
        inputs = {name: self._input(context, record, name) for name in self.spec.sources}
        return Job(
            name=f"{self.spec.name}/{context['run_id']}/{self.task_id}",
            folder=self.private(context, f"job-{self.task_id}"),
            argv=[train.script],
            code=self.project_folder(context),
            python=Path(record.read("packages")["python"]),
            inputs=inputs,
            hyperparameters=hyperparameters,
            env={
                "MLFLOW_TRACKING_URI": settings().mlflow_url,
                "MLFLOW_RUN_ID": run.id,
                "MLFLOW_EXPERIMENT_NAME": self.spec.name,
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            cpus=limits.cpus,
            memory=limits.memory,
            gpus=limits.gpus,
            timeout=limits.timeout,
        )

    def _input(self, context: Context, record: RunRecord, source: str) -> Path:
        manifest = record.read(f"fetch-{source}")["manifest"]
        return self.materialised(context, manifest, f"input-{source}")

    def _store(self, context: Context, model: Path) -> Manifest:
        """The model, in the store: what is registered, served and gone back to is taken there."""
        from tracklayer.store import open_store

        store = open_store()
        with store.session():
            stored = store.put_tree(model, origin={"run": f"{self.spec.name}/{context['run_id']}"})
            self.hold(context, stored)
        return stored

    def _listener(self, run: TrackedRun) -> Callable[[str], None]:
        """Write each line into the log; a metric that the spec finds in it goes to MLflow too."""
        train = self.spec.train
        patterns = {name: re.compile(text) for name, text in train.metrics.items()} if train else {}
        tracking = self.tracking()

        def on_line(line: str) -> None:
            self.log.info(line)
            for name, pattern in patterns.items():
                if match := pattern.search(line):
                    tracking.log_metrics(run.id, {name: float(match[1])})

        return on_line
