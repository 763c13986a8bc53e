"""Is the model good enough to be deployed?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from tracklayer.errors import MetricError

if TYPE_CHECKING:
    from tracklayer.spec import Evaluate

# Metrics are decimal numbers to people: 0.95 is by 0.01 worse than 0.96, whatever floats say.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a model may be deployed. ``champion`` is the deployed model's value, if it has one."""

    metric: str
    value: float
    champion: float | None
    reason: str


def judge(
    rule: Evaluate, metrics: Mapping[str, float], champion: Mapping[str, float] | None = None
) -> Verdict:
    """Measure a model by the project's rule.

    :param metrics: of the model, by name.
    :param champion: metrics of the deployed model; None if there is none.
    :raises MetricError: the metric is missing, not a number or not good enough.
    """
    name = rule.metric
    if name not in metrics:
        near = get_close_matches(name, metrics, n=1)
        known = ", ".join(sorted(metrics)) or "none"
        meant = f"Did you mean `{near[0]}`? " if near else ""
        hint = f"{meant}Logged: {known}. Log it in the script: mlflow.log_metric({name!r}, value)."
        raise MetricError(f"The run has no metric `{name}` (evaluate.metric).", hint=hint)
    value = metrics[name]
    if not math.isfinite(value):
        hint = "Training diverged, or divided by nothing: look at the metric's curve in MLflow."
        raise MetricError(f"`{name}` is {value}, which is no finite number.", hint=hint)
    reasons = []
    if rule.minimum is not None:
        if value < rule.minimum:
            raise _not_enough(name, value, f"below the minimum {rule.minimum:g}", "minimum")
        reasons.append(f"at least {rule.minimum:g}")
    if rule.maximum is not None:
        if value > rule.maximum:
            raise _not_enough(name, value, f"above the maximum {rule.maximum:g}", "maximum")
        reasons.append(f"at most {rule.maximum:g}")
    best, allowed = (champion or {}).get(name), rule.no_worse_than_champion
    if best is not None and not math.isfinite(best):
        best = None
    if allowed is not None:
        reasons.append(_compared(rule, value, best, allowed, champion is None))
    return Verdict(name, value, best, f"{name} {value:g}: {', '.join(reasons) or 'any value'}")


def _compared(rule: Evaluate, value: float, best: float | None, allowed: float, first: bool) -> str:
    """What the comparison with the champion says for the model.

    :raises MetricError: the model is worse than is allowed.
    """
    if best is None:
        return "no champion yet" if first else f"the champion has no {rule.metric}"
    worse = best - value if rule.higher_is_better else value - best
    if worse > allowed + _ROUNDING * max(1.0, abs(best)):
        than = f"worse than the champion's {best:g} by {worse:.4g}; allowed is {allowed:g}"
        raise _not_enough(rule.metric, value, than, "no_worse_than_champion")
    return f"champion {best:g}"


def _not_enough(name: str, value: float, than: str, key: str) -> MetricError:
    hint = "The deployed model, if there is one, goes on serving."
    return MetricError(f"{name} {value:g} is {than} (evaluate.{key}).", hint=hint)
