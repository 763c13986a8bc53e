"""Steps that put the model behind the project's stable address, and prove that it answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from tracklayer.settings import settings
from tracklayer_airflow.links import EndpointLink
from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.gateway.rollout import Rollout
    from tracklayer.tracking import RunRecord


class _RolloutOperator(StepOperator):
    operator_extra_links: tuple[BaseOperatorLink, ...] = (EndpointLink(),)

    def rollout(self) -> Rollout:
        """The servers of this project."""
        from tracklayer.platform import rollout

        return rollout(self.spec.name)

    @property
    def endpoint(self) -> str:
        """The stable address of the project."""
        return f"{settings().gateway_url}/{self.spec.name}"


class DeployOperator(_RolloutOperator):
    """Starts the new version beside the old one, proves it right and switches to it."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        from tracklayer.serving import Golden
        from tracklayer.store import open_store

        registered = record.read("register")
        version = registered["version"]
        rollout = self.rollout()
        store, manifest = open_store(), registered["manifest"]
        # Written down before it can answer anybody: what answered once is never collected.
        store.set_ref(f"deployments/{self.spec.name}/{version}", store.manifest(manifest))
        before = rollout.live()
        golden = Golden.from_dict(registered["golden"])
        sockets = rollout.start(version, self.spec.deploy.replicas, golden, manifest=manifest)
        self.log.info("Version %s is ready and right on %d servers", version, len(sockets))
        rollout.switch(version, sockets)
        EndpointLink().push(context, self.endpoint)
        self.log.info("%s is answered by version %s", self.endpoint, version)
        previous = None
        if before and before[0] != version:
            previous = {"version": before[0], "sockets": [str(path) for path in before[1]]}
        return {
            "version": version,
            "endpoint": self.endpoint,
            "manifest": manifest,
            "previous": previous,
        }


class VerifyOperator(_RolloutOperator):
    """Asks the golden request at the stable address; makes the version the champion or goes back.

    Its outlet is the project's model asset: who waits for it waits for a model that answers.
    """

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        import httpx

        from tracklayer.errors import ServiceError
        from tracklayer.gateway.rollout import ask
        from tracklayer.serving import Golden

        deployed = record.read("deploy")
        version, previous = deployed["version"], deployed["previous"]
        golden = Golden.from_dict(record.read("register")["golden"])
        url = f"{self.endpoint}/v2/models/{self.spec.name}/infer"
        rollout = self.rollout()
        try:
            ask(lambda body: httpx.post(url, json=body, timeout=30, trust_env=False), golden)
        except ServiceError:
            if previous:
                rollout.switch(previous["version"], [Path(path) for path in previous["sockets"]])
                rollout.keep_only(previous["version"])
                self.log.error("Went back to version %s", previous["version"])
            raise
        tracking = self.tracking()
        tracking.promote(self.spec.name, version)
        rollout.keep_only(version)
        run = record.read("register")["mlflow_run"]
        outcome = {"version": version, "endpoint": self.endpoint, "answer": golden.response}
        document = record.document()
        document["steps"]["verify"] = outcome
        tracking.log_record(run, document)
        tracking.finish(run, "FINISHED")
        EndpointLink().push(context, self.endpoint)
        self.log.info("%s answers as version %s should", self.endpoint, version)
        return outcome
