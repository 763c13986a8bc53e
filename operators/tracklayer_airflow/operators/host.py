"""Steps that make, prepare and give back the machines of a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tracklayer.settings import resource, settings
from tracklayer.spec import Resources
from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.spec import Spec
    from tracklayer.tools.terraform import Terraform
    from tracklayer.tracking import RunRecord


class _TerraformOperator(StepOperator):
    """A step that drives Terraform on the state of the project's target."""

    _terraform: Terraform | None = None

    def terraform(self, context: Context) -> Terraform:
        """Terraform on this project's own state."""
        from tracklayer.targets import terraform_root
        from tracklayer.tools.terraform import Terraform

        labels = {"project": self.spec.name, "run": context["run_id"], "step": self.task_id}
        wanted = _wanted(self.spec)
        variables: dict[str, object] = {
            "name": self.spec.name,
            "labels": labels,
            "cpus": wanted.cpus,
            "memory": wanted.memory,
            "gpus": wanted.gpus,
        }
        if self.spec.target == "local":
            variables["python"] = sys.executable
        self._terraform = Terraform(
            terraform_root(self.spec.target),
            settings().state / self.spec.name / self.spec.target,
            on_line=self.line_logger(),
            variables=variables,
            labels=labels,
        )
        return self._terraform

    def on_kill(self) -> None:
        """Interrupt Terraform once; it writes its state and gives up its lock."""
        if self._terraform:
            self._terraform.interrupt()


class ProvisionOperator(_TerraformOperator):
    """Makes the machines: plans, applies that plan, checks what came of it."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:  # noqa: ARG002
        from tracklayer.targets import Outputs

        outputs = Outputs.check(self.terraform(context).apply())
        return {"target": self.spec.target, **outputs.model_dump(mode="json")}


class ReleaseOperator(_TerraformOperator):
    """Gives the machines back, whatever happened to the run."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:  # noqa: ARG002
        self.terraform(context).destroy()
        return {"target": self.spec.target}


class ConfigureOperator(StepOperator):
    """Checks and prepares the machines with Ansible."""

    _cancelled = False

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:  # noqa: ARG002
        from tracklayer.targets import Outputs
        from tracklayer.tools.ansible import run_playbook

        wanted = _wanted(self.spec)
        provisioned = record.read("provision")
        result = run_playbook(
            resource("infra/ansible/playbooks/configure.yaml"),
            hosts=Outputs.check({"hosts": provisioned["hosts"]}).hosts,
            variables={
                "host_cpus": wanted.cpus,
                "host_memory": wanted.memory,
                "host_gpus": wanted.gpus,
            },
            on_line=self.line_logger(),
            private_data_dir=record.folder / "ansible",
            cancel=lambda: self._cancelled,
        )
        return {"ok": result.ok, "changed": result.changed}

    def on_kill(self) -> None:
        """Have the playbook end after its current task."""
        self._cancelled = True


def _wanted(spec: Spec) -> Resources:
    """What the machines must have: what the training asks for."""
    return spec.train.resources if spec.train else Resources()
