from __future__ import annotations

import math

import pytest

from tracklayer.errors import MetricError
from tracklayer.spec import Evaluate
from tracklayer.tracking import judge


def rule(**values: object) -> Evaluate:
    return Evaluate.model_validate({"metric": "accuracy", **values})


def test_good_enough() -> None:
    verdict = judge(rule(minimum=0.95), {"accuracy": 0.97, "loss": 1.0})
    assert (verdict.metric, verdict.value, verdict.champion) == ("accuracy", 0.97, None)
    assert verdict.reason == "accuracy 0.97: at least 0.95"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"minimum": 0.95}, "accuracy 0.91 is below the minimum 0.95 (evaluate.minimum)."),
        ({"maximum": 0.5}, "accuracy 0.91 is above the maximum 0.5 (evaluate.maximum)."),
    ],
)
def test_out_of_bounds(limits: dict[str, float], message: str) -> None:
    with pytest.raises(MetricError) as error:
        judge(rule(**limits), {"accuracy": 0.91})
    assert error.value.message == message


@pytest.mark.parametrize(("limits", "value"), [({"minimum": 0.5}, 0.5), ({"maximum": 0.5}, 0.5)])
def test_a_limit_itself_is_good(limits: dict[str, float], value: float) -> None:
    assert judge(rule(**limits), {"accuracy": value}).value == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_finite_number(value: float) -> None:
    with pytest.raises(MetricError, match=f"`accuracy` is {value}, which is no finite number"):
        judge(rule(), {"accuracy": value})


@pytest.mark.parametrize(
    ("logged", "hint"),
    [
        ({}, "Logged: none"),
        ({"acuracy": 1.0, "loss": 0.1}, "Did you mean `acuracy`? Logged: acuracy, loss."),
    ],
)
def test_missing(logged: dict[str, float], hint: str) -> None:
    with pytest.raises(MetricError, match="no metric `accuracy`") as error:
        judge(rule(), logged)
    assert hint in (error.value.hint or "")


def test_worse_than_the_champion() -> None:
    with pytest.raises(MetricError) as error:
        judge(rule(no_worse_than_champion=0.005), {"accuracy": 0.95}, {"accuracy": 0.97})
    assert error.value.message == (
        "accuracy 0.95 is worse than the champion's 0.97 by 0.02; allowed is 0.005 "
        "(evaluate.no_worse_than_champion)."
    )


def test_less_can_be_better() -> None:
    lower = rule(no_worse_than_champion=0.1, mode="min")
    assert judge(lower, {"accuracy": 0.5}, {"accuracy": 2.0}).champion == 2.0
    with pytest.raises(MetricError, match=r"worse than the champion's 2 by 0\.5"):
        judge(lower, {"accuracy": 2.5}, {"accuracy": 2.0})


def test_a_decimal_that_floats_cannot_hold() -> None:
    """0.96 - 0.95 is 0.010000000000000009 in binary."""
    verdict = judge(rule(no_worse_than_champion=0.01), {"accuracy": 0.95}, {"accuracy": 0.96})
    assert verdict.reason == "accuracy 0.95: champion 0.96"


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (None, "no champion yet"),
        ({"loss": 1.0}, "the champion has no accuracy"),
        ({"accuracy": math.nan}, "the champion has no accuracy"),
    ],
)
def test_nobody_to_compare_with(champion: dict[str, float] | None, reason: str) -> None:
    verdict = judge(rule(no_worse_than_champion=0.0), {"accuracy": 0.1}, champion)
    assert verdict.reason == f"accuracy 0.1: {reason}"


def test_the_champion_counts_only_if_the_rule_says_so() -> None:
    verdict = judge(rule(), {"accuracy": 0.1}, {"accuracy": 0.9})
    assert (verdict.champion, verdict.reason) == (0.9, "accuracy 0.1: any value")
