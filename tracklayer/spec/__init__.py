"""The spec: reading ``tracklayer.yaml`` and pipeline templates, with every mistake located."""

from tracklayer.spec.check import check_project, find_cycle
from tracklayer.spec.fields import OFFLINE
from tracklayer.spec.loader import load, loads
from tracklayer.spec.models import (
    After,
    Deploy,
    Evaluate,
    Gates,
    Hyperparameter,
    Packages,
    Resources,
    Rollout,
    Source,
    Spec,
    Train,
)
from tracklayer.spec.plan import PlannedStep
from tracklayer.spec.positions import Positions
from tracklayer.spec.template import (
    RUNS,
    SECTIONS,
    Step,
    Template,
    known_templates,
    load_template,
)

__all__ = [
    "OFFLINE",
    "RUNS",
    "SECTIONS",
    "After",
    "Deploy",
    "Evaluate",
    "Gates",
    "Hyperparameter",
    "Packages",
    "PlannedStep",
    "Positions",
    "Resources",
    "Rollout",
    "Source",
    "Spec",
    "Step",
    "Template",
    "Train",
    "check_project",
    "find_cycle",
    "json_schema",
    "known_templates",
    "load",
    "load_template",
    "loads",
]


def json_schema() -> dict[str, object]:
    """JSON Schema of ``tracklayer.yaml``, for editors."""
    from tracklayer.spec.schema import json_schema

    return json_schema()
