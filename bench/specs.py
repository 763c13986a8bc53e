"""One project of ``train-and-deploy``: its spec, and the same DAG written by hand."""

from __future__ import annotations

from string import Template

_SPEC = Template(
    """\
name: $name
description: One of many
template: train-and-deploy@1
target: local
sources:
  data: path:data/train.csv
packages:
  python: "3.11"
  requirements: [torch==2.13.0, numpy==2.4.6]
train:
  script: train.py
  hyperparameters: {epochs: 10, learning-rate: 0.005, batch-size: 64, seed: 0}
  resources: {cpus: 1, memory: 2GiB, timeout: 10m}
evaluate: {metric: accuracy, minimum: 0.97, no_worse_than_champion: 0.01}
deploy: {replicas: 1}
schedule: "@weekly"
"""
)

# As somebody would write it who has our operators, Airflow and no Tracklayer: no YAML is read, no
# template is resolved, nothing is looked up.
_DAG = Template(
    '''\
"""The pipeline of $name, written by hand."""

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias, CronTriggerTimetable, Param

from tracklayer.spec import Deploy, Evaluate, Packages, Resources, Spec, Train
from tracklayer_airflow.operators.deploy import DeployOperator, VerifyOperator
from tracklayer_airflow.operators.fetch import FetchOperator
from tracklayer_airflow.operators.host import ConfigureOperator, ProvisionOperator, ReleaseOperator
from tracklayer_airflow.operators.model import EvaluateOperator, RegisterOperator
from tracklayer_airflow.operators.train import PackagesOperator, TrainOperator

DOC = """\\
```yaml
$spec
```"""

SPEC = Spec(
    name="$name",
    description="One of many",
    template="train-and-deploy@1",
    target="local",
    sources={"data": "path:data/train.csv"},
    packages=Packages(python="3.11", requirements=["torch==2.13.0", "numpy==2.4.6"]),
    train=Train(
        script="train.py",
        hyperparameters={"epochs": 10, "learning-rate": 0.005, "batch-size": 64, "seed": 0},
        resources=Resources(cpus=1, memory="2GiB", timeout="10m"),
    ),
    evaluate=Evaluate(metric="accuracy", minimum=0.97, no_worse_than_champion=0.01),
    deploy=Deploy(replicas=1),
    schedule="@weekly",
)

with DAG(
    dag_id="$name",
    description="One of many",
    schedule=CronTriggerTimetable("@weekly", timezone="UTC", run_immediately=timedelta(0)),
    catchup=False,
    max_active_runs=1,
    params={
        "epochs": Param(10, type="integer"),
        "learning-rate": Param(0.005, type="number"),
        "batch-size": Param(64, type="integer"),
        "seed": Param(0, type="integer"),
    },
    tags=["tracklayer", "train-and-deploy@1"],
    doc_md=DOC,
    render_template_as_native_obj=False,
) as dag:
    provision = ProvisionOperator(task_id="provision", spec=SPEC)
    configure = ConfigureOperator(task_id="configure", spec=SPEC)
    fetch = FetchOperator(
        task_id="fetch-data",
        spec=SPEC,
        item="data",
        inlets=[Asset(name="$name/data", uri="tracklayer://$name/data")],
        outlets=[AssetAlias("$name/data")],
    )
    packages = PackagesOperator(task_id="packages", spec=SPEC)
    train = TrainOperator(task_id="train", spec=SPEC)
    evaluate = EvaluateOperator(task_id="evaluate", spec=SPEC)
    register = RegisterOperator(task_id="register", spec=SPEC)
    deploy = DeployOperator(task_id="deploy", spec=SPEC)
    verify = VerifyOperator(
        task_id="verify",
        spec=SPEC,
        outlets=[Asset(name="$name/model", uri="tracklayer://$name/model")],
    )
    release = ReleaseOperator(task_id="release", spec=SPEC)

    provision >> configure >> [fetch, packages] >> train
    train >> evaluate >> register >> deploy >> verify >> release
    verify >> EmptyOperator(task_id="_outcome")
    provision.as_setup()
    release.as_teardown(setups=provision, on_failure_fail_dagrun=True)
'''
)

# dag-factory has no words for our operators' arguments: its tasks are Airflow's lightest.
_DAG_FACTORY = Template(
    """\
$name:
  description: One of many
  schedule: "@weekly"
  start_date: 2024-01-01
  catchup: false
  max_active_runs: 1
  params: {epochs: 10, learning-rate: 0.005, batch-size: 64, seed: 0}
  tasks:
    provision: {operator: $operator}
    configure: {operator: $operator, dependencies: [provision]}
    fetch-data: {operator: $operator, dependencies: [configure]}
    packages: {operator: $operator, dependencies: [configure]}
    train: {operator: $operator, dependencies: [fetch-data, packages]}
    evaluate: {operator: $operator, dependencies: [train]}
    register: {operator: $operator, dependencies: [evaluate]}
    deploy: {operator: $operator, dependencies: [register]}
    verify: {operator: $operator, dependencies: [deploy]}
    release: {operator: $operator, dependencies: [verify]}
    _outcome: {operator: $operator, dependencies: [verify]}
"""
)

DAG_FACTORY_LOADER = """\
from pathlib import Path

from airflow.sdk import DAG  # a DAG file has to name both
from dagfactory import load_yaml_dags

FOLDER = str(Path(__file__).parent)
load_yaml_dags(globals_dict=globals(), dags_folder=FOLDER, defaults_config_path=FOLDER)
"""


def spec_text(name: str) -> str:
    """``tracklayer.yaml`` of a project."""
    return _SPEC.substitute(name=name)


def hand_written(name: str) -> str:
    """The DAG file that makes the same DAG with the same operators."""
    return _DAG.substitute(name=name, spec=spec_text(name))


def dag_factory(name: str) -> str:
    """The same steps in the same order for dag-factory."""
    operator = "airflow.providers.standard.operators.empty.EmptyOperator"
    return _DAG_FACTORY.substitute(name=name, operator=operator)
