"""The step that finds the fastest form of the model that answers as it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.optimize import Choice
    from tracklayer.store import Manifest
    from tracklayer.tracking import RunRecord

TABLE = "optimize.json"
"""Name of the table of candidates among the artifacts of the MLflow run."""


class OptimizeOperator(StepOperator):
    """Builds the candidates, holds them against the registered model, and keeps the fastest.

    What is noted replaces for the deployment what ``register`` noted: the manifest that is served
    and the golden request with this form's own answer. The version stays the registered one.
    """

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        from tracklayer.optimize import Budget, choose, text
        from tracklayer.private import temporary
        from tracklayer.serving import golden
        from tracklayer.store import open_store

        wanted = self.spec.deploy.optimize
        assert wanted is not None
        registered = record.read("register")
        folder = self.materialised(context, registered["manifest"], "model")
        size = open_store().manifest(registered["manifest"]).size
        with temporary(size * _COPIES) as work:
            choice = choose(
                folder,
                work,
                data=self._data(context, record, wanted.data),
                budget=Budget(wanted.budget, wanted.metric),
                on_line=self.line_logger(),
            )
            if choice.note:
                self.log.warning(choice.note)
            for line in text(choice.rows):
                self.log.info(line)
            self._track(registered["mlflow_run"], choice)
            served = {"manifest": registered["manifest"], "golden": registered["golden"]}
            if choice.folder:
                stored = self._store(context, choice.folder)
                served = {"manifest": stored.digest, "golden": golden(choice.folder).to_dict()}
        self.log.info("%s is served", choice.chosen.name)
        return {
            **registered,
            **served,
            "chosen": choice.chosen.name,
            "note": choice.note,
            "candidates": [row.document() for row in choice.rows],
        }

    def _data(self, context: Context, record: RunRecord, source: str | None) -> Path | None:
        """The held-out data in a source; None if the spec names no source."""
        from tracklayer.errors import ModelError
        from tracklayer.optimize import HOLDOUT, find

        if source is None:
            return None
        manifest = record.read(f"fetch-{source}")["manifest"]
        folder = self.materialised(context, manifest, f"input-{source}")
        if found := find(folder):
            return found
        raise ModelError(
            f"deploy.optimize.data: the source {source} has no {' and no '.join(HOLDOUT)}"
        )

    def _store(self, context: Context, folder: Path) -> Manifest:
        from tracklayer.store import open_store

        store = open_store()
        with store.session():
            stored = store.put_tree(folder, origin={"run": f"{self.spec.name}/{context['run_id']}"})
            self.hold(context, stored)
        return stored

    def _track(self, run: str, choice: Choice) -> None:
        """The table of candidates and its numbers, in MLflow."""
        documents = [row.document() for row in choice.rows]
        columns = list(documents[0])
        tracking = self.tracking()
        tracking.log_table(run, TABLE, columns, [list(found.values()) for found in documents])
        numbers = {
            f"optimize/{row.name}/{key}": value
            for row in choice.rows
            for key in ("error", "median_ms", "p95_ms", "speedup", "size")
            if (value := getattr(row, key)) is not None
        }
        tracking.log_metrics(run, numbers)


_COPIES = 6
"""How many times the model's size the candidates take on the disk."""
