"""Steps that judge and register the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.tracking import RunRecord


class EvaluateOperator(StepOperator):
    """Holds the run's metric against the spec's limits and the champion's."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:  # noqa: ARG002
        from tracklayer.errors import ServiceError, TrackingError, TracklayerError
        from tracklayer.platform import champion_follows
        from tracklayer.tracking import judge

        assert self.spec.evaluate is not None
        tracking = self.tracking()
        run = record.read("train")["mlflow_run"]
        metrics = tracking.metrics(run)
        try:  # somebody may have gone back to an older one while MLflow was away
            champion_follows(self.spec.name)
        except (ServiceError, TrackingError) as error:
            self.log.warning("The champion is the one that MLflow knows: %s", error.message)
        champion = tracking.champion(self.spec.name)
        try:
            verdict = judge(
                self.spec.evaluate,
                metrics,
                tracking.metrics(champion.run_id) if champion else None,
            )
        except TracklayerError:
            tracking.finish(run, "FAILED")
            raise
        self.log.info(verdict.reason)
        return {
            "metric": verdict.metric,
            "value": verdict.value,
            "champion": verdict.champion,
            "reason": verdict.reason,
            "metrics": metrics,
        }


class RegisterOperator(StepOperator):
    """Makes the model a version in the registry; a later try of the same run makes no second."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        from tracklayer.serving import golden

        tracking = self.tracking()
        trained = record.find("train")
        manifest = (trained["model"] if trained else record.read("fetch-model"))["manifest"]
        folder = self.materialised(context, manifest, "model")
        run = trained["mlflow_run"] if trained else self._given(context, folder)
        example = golden(folder, allow=self.spec.deploy.allow)
        version = tracking.register(
            self.spec.name,
            run,
            tags={
                "tracklayer.commit": self.pinned_commit(context),
                "tracklayer.manifest": manifest,
            },
        )
        self.log.info("Registered %s version %s", self.spec.name, version.version)
        return {
            "version": version.version,
            "mlflow_run": run,
            "manifest": manifest,
            "golden": example.to_dict(),
        }

    def _given(self, context: Context, folder: Path) -> str:
        """The MLflow run of a model that was not trained here: the source named ``model``."""
        from tracklayer.serving import recognise

        recognise(folder)
        commit = self.pinned_commit(context)
        run = self.tracking().start(
            self.spec.name, context["run_id"], parameters={}, tags={"tracklayer.commit": commit}
        )
        self.tracking().log_model(run.id, folder)
        return run.id
