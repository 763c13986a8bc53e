# mypy: ignore-errors
"""Ten steps that do nothing, one after the other, as an Airflow DAG."""

from airflow.sdk import dag, task
from airflow.sdk.bases.operator import chain


@task
def nothing() -> None:
    pass


@dag(dag_id="chain", schedule=None)
def ten_steps():
    chain(*[nothing.override(task_id=f"step{number}")() for number in range(10)])


ten_steps()
