# mypy: ignore-errors
"""Ten steps that do nothing, one after the other, as a Dagster job."""

from dagster import In, Nothing, job, op


def step(number):
    takes = {"before": In(Nothing)} if number else {}

    @op(name=f"step{number}", ins=takes)
    def nothing() -> None:
        pass

    return nothing


STEPS = [step(number) for number in range(10)]


@job
def chain():
    done = STEPS[0]()
    for following in STEPS[1:]:
        done = following(done)
