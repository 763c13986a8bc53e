"""A step that does nothing: to measure what the orchestration itself costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.tracking import RunRecord


class NoopOperator(StepOperator):
    """Does nothing, and notes that in the run record."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:  # noqa: ARG002
        return {}
