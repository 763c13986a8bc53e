"""MLflow runs and models, the record of a run, and the judge of its metrics."""

from tracklayer.tracking.judge import Verdict, judge
from tracklayer.tracking.record import RunRecord, run_folder
from tracklayer.tracking.tracking import ModelVersion, Point, TrackedRun, Tracking

__all__ = [
    "ModelVersion",
    "Point",
    "RunRecord",
    "TrackedRun",
    "Tracking",
    "Verdict",
    "judge",
    "run_folder",
]
