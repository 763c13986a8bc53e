"""From a spec to its Airflow DAG: the template's steps, each one of our operators.

The same spec gives the same DAG in every process: nothing here depends on a clock, the order of a
set or the machine.
"""

from __future__ import annotations

import functools
import operator
from datetime import timedelta
from importlib import import_module
from typing import Any, cast

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AssetAlias, CronTriggerTimetable, Param
from airflow.sdk.definitions.param import ParamsDict

from tracklayer.platform.check import plan
from tracklayer.spec import After, PlannedStep, Spec, loads
from tracklayer_airflow.assets import asset
from tracklayer_airflow.operators.step import StepOperator

OPERATORS = {
    "provision": "tracklayer_airflow.operators.host:ProvisionOperator",
    "configure": "tracklayer_airflow.operators.host:ConfigureOperator",
    "release": "tracklayer_airflow.operators.host:ReleaseOperator",
    "fetch": "tracklayer_airflow.operators.fetch:FetchOperator",
    "packages": "tracklayer_airflow.operators.train:PackagesOperator",
    "train": "tracklayer_airflow.operators.train:TrainOperator",
    "evaluate": "tracklayer_airflow.operators.model:EvaluateOperator",
    "register": "tracklayer_airflow.operators.model:RegisterOperator",
    "optimize": "tracklayer_airflow.operators.optimize:OptimizeOperator",
    "deploy": "tracklayer_airflow.operators.deploy:DeployOperator",
    "verify": "tracklayer_airflow.operators.deploy:VerifyOperator",
    "noop": "tracklayer_airflow.operators.noop:NoopOperator",
}
"""What a step runs -> its operator. A test holds this table against ``tracklayer.spec.RUNS``."""


def build_dag(text: str, file: str, *, commit: str | None = None) -> DAG:
    """The DAG of one spec.

    :param text: of the spec.
    :param file: its path in the repository, ``<project>/tracklayer.yaml``.
    :param commit: where the project's files are, if not at the version of the bundle.
    :raises SpecError: the spec is wrong.
    """
    spec = loads(text, file)
    steps = plan(spec)
    dag = DAG(
        dag_id=spec.name,
        description=spec.description or None,
        schedule=_schedule(spec),
        catchup=False,
        # Two runs of a project would fight for its hosts and its endpoint.
        max_active_runs=1,
        tags=["tracklayer", spec.template],
        doc_md=f"```yaml\n{text}\n```",
        render_template_as_native_obj=False,
    )
    tasks: dict[str, StepOperator] = {}
    for step in steps:
        task = _operator(step.run)(
            task_id=step.id,
            dag=dag,
            commit=commit,
            spec=spec,
            item=step.item,
            **_assets(spec, step),
        )
        tasks[step.id] = task
        for before in step.after:
            tasks[before] >> task
    _judge(dag, steps, tasks)
    for step in steps:
        _mark(step, tasks)
    # After the tasks: each would get a copy, and Airflow validates every copy many times over as it
    # serialises the DAG. A running task gets the DAG's own in any case.
    dag.params = ParamsDict(_params(spec))
    return dag


def _judge(dag: DAG, steps: list[PlannedStep], tasks: dict[str, StepOperator]) -> None:
    """Have the run fail with its steps.

    Airflow asks only the leaves of a DAG, and a teardown that may fail the run is a leaf after all
    others: without another one beside it, a green clean-up would hide a failed training.
    """
    teardowns = {step.id for step in steps if step.kind == "teardown"}
    if teardowns:
        outcome = EmptyOperator(task_id="_outcome", dag=dag)  # no step has such a name
        for name, task in tasks.items():
            if name not in teardowns and task.downstream_task_ids <= teardowns:
                task >> outcome


def _assets(spec: Spec, step: PlannedStep) -> dict[str, list[Any]]:
    """What a step's success can set off in other projects."""
    if step.run == "verify":
        return {"outlets": [asset(f"{spec.name}/model")]}
    # The asset <project>/model is the model that answers, also where a source has that name.
    if step.run == "fetch" and step.item != "model":
        # By an alias, because only other data than before is an event.
        name = f"{spec.name}/{step.item}"
        return {"inlets": [asset(name)], "outlets": [AssetAlias(name)]}
    return {}


def _mark(step: PlannedStep, tasks: dict[str, StepOperator]) -> None:
    if step.kind == "setup":
        cast(Any, tasks[step.id]).as_setup()
    elif step.kind == "teardown":
        tasks[step.id].as_teardown(setups=tasks[cast(str, step.of)], on_failure_fail_dagrun=True)


@functools.cache
def _operator(run: str) -> type[StepOperator]:
    module, _, name = OPERATORS[run].partition(":")
    return cast(type[StepOperator], getattr(import_module(module), name))


def _schedule(spec: Spec) -> Any:
    if isinstance(spec.schedule, After):
        return functools.reduce(operator.and_, map(asset, spec.schedule.after))
    if spec.schedule is None:
        return None
    # Saved on a Friday, a weekly project waits for Sunday: it does not make up for the last one.
    return CronTriggerTimetable(spec.schedule, timezone="UTC", run_immediately=timedelta(0))


def _params(spec: Spec) -> dict[str, Param]:
    if spec.train is None:
        return {}
    return {
        name: Param(found.value, description=found.description or None, **found.constraints())
        for name, found in spec.train.hyperparameters.items()
    }
