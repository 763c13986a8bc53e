from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from tracklayer.errors import JobFailed, SourceError
from tracklayer.spec import loads
from tracklayer.tracking import RunRecord
from tracklayer_airflow.operators.noop import NoopOperator
from tracklayer_airflow.operators.step import RetryOnlyInterruptions, StepFailed, StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

SPEC = loads("name: p\ntemplate: train-and-deploy@1\ntrain: {script: a.py}\n")


class Failing(StepOperator):
    error: Exception

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        raise self.error


def failing(error: Exception) -> Failing:
    step = Failing(task_id="fails", spec=SPEC, commit="c0ffee")
    step.error = error
    return step


CONTEXT: Any = {"run_id": "run/1"}


def test_a_step_only_says_what_it_does() -> None:
    with pytest.raises(TypeError, match="abstract"):
        cast(Any, StepOperator)(task_id="x", spec=SPEC)


@pytest.mark.usefixtures("own_home")
def test_the_outcome_is_in_the_record_and_a_reference_to_it_is_handed_on() -> None:
    step = NoopOperator(task_id="one", spec=SPEC, commit="c0ffee")
    found = step.execute(CONTEXT)
    assert set(found) == {"record", "step"}
    assert found["step"] == "one"
    document = step.record(CONTEXT).document()
    assert document["steps"] == {"one": {}}
    assert (document["project"], document["run"], document["commit"]) == ("p", "run/1", "c0ffee")


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize(
    "error", [SourceError("no such file", hint="Add it."), JobFailed("code 3")]
)
def test_an_error_for_the_user_ends_the_step_with_its_exit_code(
    error: SourceError | JobFailed,
) -> None:
    with pytest.raises(StepFailed) as caught:
        failing(error).execute(CONTEXT)
    assert caught.value.code == error.exit_code
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.usefixtures("own_home")
def test_a_fault_of_ours_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError()).execute(CONTEXT)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (StepFailed(3), RetryAction.FAIL),
        (SystemExit(1), RetryAction.DEFAULT),
        (KeyboardInterrupt(), RetryAction.DEFAULT),
        (OSError(), RetryAction.DEFAULT),
    ],
)
def test_only_what_was_interrupted_is_tried_again(
    error: BaseException, action: RetryAction
) -> None:
    assert RetryOnlyInterruptions().evaluate(error, 1, 3).action is action


def test_steps_of_one_kind_of_setting_can_be_set_otherwise() -> None:
    assert NoopOperator(task_id="a", spec=SPEC, retries=0).retries == 0
