"""Steps that put the model behind the project's stable address, and prove that it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from tracklayer.settings import settings
from tracklayer_airflow.links import EndpointLink
from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.gateway.endpoint import Author
    from tracklayer.gateway.rollout import Rollout
    from tracklayer.tracking import RunRecord


class _EndpointOperator(StepOperator):
    operator_extra_links: tuple[BaseOperatorLink, ...] = (EndpointLink(),)

    @property
    def endpoint(self) -> str:
        """The stable address of the project."""
        return f"{settings().gateway_url}/{self.spec.name}"

    def author(self, context: Context) -> Author:
        """Who started the run; nobody did if it follows a schedule."""
        from tracklayer.gateway.endpoint import Author

        name = context["dag_run"].triggering_user_name or "airflow"
        return Author(name, run=context["run_id"], commit=self.pinned_commit(context))


class DeployOperator(_EndpointOperator):
    """Lets the new version take over from the old one, by the steps and gates of the spec."""

    _rollout: Rollout | None = None

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        from tracklayer.gateway.releases import Release
        from tracklayer.platform import rollout
        from tracklayer.serving import Golden
        from tracklayer.store import open_store

        served = _served(record)
        author = self.author(context)
        release = Release(
            version=served["version"],
            manifest=served["manifest"],
            replicas=self.spec.deploy.replicas,
            golden=Golden.from_dict(served["golden"]),
            allow=list(self.spec.deploy.allow),
            commit=author.commit,
            access=self.spec.deploy.access,
        )
        store = open_store()
        # Written down before it can answer anybody: what answered once is never collected.
        ref = f"deployments/{self.spec.name}/{release.version}"
        store.set_ref(ref, store.manifest(release.manifest))
        self._rollout = rollout(self.spec.name)
        previous = self._rollout.deploy(release, self.spec.deploy, author, self.line_logger())
        EndpointLink().push(context, self.endpoint)
        self.log.info("%s is answered by version %s", self.endpoint, release.version)
        return {
            "version": release.version,
            "endpoint": self.endpoint,
            "manifest": release.manifest,
            "previous": previous,
        }

    def on_kill(self) -> None:
        """Take the new version back."""
        if self._rollout:
            self._rollout.cancel("its task was ended")


class VerifyOperator(_EndpointOperator):
    """Asks the gateway the golden request as a user does; makes the version champion or goes back.

    Its outlet is the project's model asset: who waits for it waits for a model that answers.
    """

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        from tracklayer.errors import ServiceError
        from tracklayer.gateway.steering import Steering
        from tracklayer.platform import champion_follows, endpoint
        from tracklayer.serving import Golden

        deployed = record.read("deploy")
        version, previous = deployed["version"], deployed["previous"]
        golden = Golden.from_dict(_served(record)["golden"])
        here = endpoint(self.spec.name)
        try:
            here.ask(golden)
        except ServiceError as error:
            if previous is not None:
                reason = error.message.splitlines()[0]
                Steering(here).rollback(previous, self.author(context), reason, self.log.info)
                here.take_out(version)
                self.log.error("Went back to version %s", previous)
            raise
        champion_follows(self.spec.name)
        run = record.read("register")["mlflow_run"]
        outcome = {"version": version, "endpoint": self.endpoint, "answer": golden.response}
        document = record.document()
        document["steps"]["verify"] = outcome
        tracking = self.tracking()
        tracking.log_record(run, document)
        tracking.finish(run, "FINISHED")
        EndpointLink().push(context, self.endpoint)
        self.log.info("%s answers as version %s should", self.endpoint, version)
        return outcome


def _served(record: RunRecord) -> dict[str, Any]:
    """What is deployed: the fastest form, if one was looked for, else the registered model."""
    return record.find("optimize") or record.read("register")
