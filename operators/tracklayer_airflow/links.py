"""Links from an Airflow task to where its outcome is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey


class _PushedLink(BaseOperatorLink):
    """A link that the operator pushes while it runs; afterwards it is what was pushed."""

    name = ""

    def push(self, context: Context, url: str) -> None:
        """Show the link from now on, while the task still runs."""
        context["ti"].xcom_push(self.xcom_key, url)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        # Airflow stores what this returns over what was pushed when the task ends.
        url = XCom.get_one(
            key=self.xcom_key,
            task_id=ti_key.task_id,
            dag_id=ti_key.dag_id,
            run_id=ti_key.run_id,
            map_index=ti_key.map_index,
        )
        return str(url or "")


class MlflowRunLink(_PushedLink):
    """The MLflow run that a training writes to."""

    name = "MLflow run"


class EndpointLink(_PushedLink):
    """The stable address of the project."""

    name = "Endpoint"
