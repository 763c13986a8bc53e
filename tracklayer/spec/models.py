"""What ``tracklayer.yaml`` may say.

The models are strict: no key that is not here, no text where a number belongs. They hold only what
the platform does today; a key for what it may do one day would be a promise that nobody keeps.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_validator,
)

from tracklayer.spec.fields import (
    Asset,
    ConnectionId,
    Cron,
    Duration,
    Handle,
    HyperparameterName,
    Memory,
    MetricName,
    MetricPattern,
    Name,
    PythonVersion,
    Requirement,
    Script,
    SourceName,
    TemplateName,
    wrong,
)
from tracklayer.spec.positions import Positions

GIB = 1024**3

Scalar: TypeAlias = bool | int | float | str


class Model(BaseModel):
    """Base of everything that is read from a file."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _check_scalar(value: object) -> object:
    """One complaint in place of one for each member of the union."""
    if not isinstance(value, Scalar):
        raise wrong("must be a number, a text, true or false")
    if isinstance(value, str) and len(value) > 4096:
        raise wrong("must have at most 4096 characters", "Put long values into a source.")
    return value


Value = Annotated[Scalar, BeforeValidator(_check_scalar, json_schema_input_type=Scalar)]


def _check_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong("must be a number")
    return value


Number = Annotated[int | float, BeforeValidator(_check_number, json_schema_input_type=int | float)]


class Hyperparameter(Model):
    """One hyperparameter: its value and what else it may be set to when a run is started."""

    value: Value = Field(description="The value of a run that sets no other")
    minimum: Number | None = Field(None, description="Least value that a run may set")
    maximum: Number | None = Field(None, description="Greatest value that a run may set")
    enum: list[Value] | None = Field(
        None, min_length=1, max_length=100, description="All values that a run may set"
    )
    description: str = Field("", max_length=1000, description="What it does, for the trigger form")

    @field_validator("minimum", "maximum")
    @classmethod
    def _bound(cls, bound: int | float | None, info: ValidationInfo) -> int | float | None:
        value, least = info.data.get("value"), info.data.get("minimum")
        if bound is None or value is None:
            return bound
        if isinstance(value, bool | str):
            raise wrong("is only for a number", "For texts, list the allowed ones under `enum`.")
        if info.field_name == "maximum" and least is not None and bound < least:
            raise wrong(f"must not be less than the minimum, {least:g}")
        if value < bound if info.field_name == "minimum" else value > bound:
            raise wrong(f"excludes the value itself, {value:g}")
        return bound

    @field_validator("enum")
    @classmethod
    def _choices(cls, enum: list[Scalar] | None, info: ValidationInfo) -> list[Scalar] | None:
        if enum is None or "value" not in info.data:
            return enum
        value = info.data["value"]
        if info.data.get("minimum") is not None or info.data.get("maximum") is not None:
            raise wrong("goes with no `minimum` and no `maximum`")
        if any(type(choice) is not type(value) for choice in enum):
            hint = "Beside 0.5, one is 1.0."
            raise wrong("must have values of the same type as `value`", hint)
        if len(set(enum)) < len(enum):
            raise wrong("has a value twice")
        if value not in enum:
            raise wrong(f"must contain the value itself, {value}")
        return enum

    def constraints(self) -> dict[str, Any]:
        """What a run may set, as keywords of JSON Schema (``type``, ``minimum``, ``enum``, ...)."""
        kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
        limits = self.model_dump(include={"minimum", "maximum", "enum"}, exclude_none=True)
        return {"type": kinds[type(self.value)], **limits}


def _expand(value: object) -> object:
    """The short form ``epochs: 5`` of ``epochs: {value: 5}``."""
    return value if isinstance(value, dict | Hyperparameter) else {"value": value}


HyperparameterField = Annotated[
    Hyperparameter, BeforeValidator(_expand, json_schema_input_type=Scalar | Hyperparameter)
]


class Source(Model):
    """Where something is fetched from, and what of it may be loaded."""

    uri: Handle = Field(description="Where it is: hf://org/model@<commit>")
    connection: ConnectionId | None = Field(
        None, description="Airflow connection with the credentials; default: tracklayer_<kind>"
    )
    allow: list[Literal["pickle", "remote-code", "unknown"]] = Field(
        default=[],
        max_length=3,
        description="What is let in although it can run code, or is of no known format",
    )


def _expand_source(value: object) -> object:
    """The short form ``data: path:data.csv`` of ``data: {uri: path:data.csv}``."""
    return value if isinstance(value, dict | Source) else {"uri": value}


SourceField = Annotated[
    Source, BeforeValidator(_expand_source, json_schema_input_type=Handle | Source)
]


class Packages(Model):
    """What the training script imports."""

    python: PythonVersion = Field("3.11", description='Version of Python, in quotes: "3.11"')
    requirements: list[Requirement] = Field(
        default=[],
        max_length=500,
        description="Requirements as pip writes them, such as torch==2.13.0",
    )


class Resources(Model):
    """What one training job may use."""

    cpus: float = Field(1, gt=0, le=1024, description="Processor cores")
    memory: Memory = Field(
        2 * GIB,
        description="Memory of the job and its children, such as 4GiB",
        json_schema_extra={"default": "2GiB"},
    )
    gpus: int = Field(0, ge=0, le=64, description="Accelerators")
    timeout: Duration = Field(
        3600,
        description="The job is ended after this time, such as 1h30m",
        json_schema_extra={"default": "1h"},
    )


class Train(Model):
    """How the model is made."""

    script: Script = Field(description="Python file in the project that trains the model")
    hyperparameters: dict[HyperparameterName, HyperparameterField] = Field(
        default={},
        max_length=200,
        description="Settings that the script gets, and that a run can change",
    )
    resources: Resources = Field(Resources(), description="What the job may use")
    metrics: dict[MetricName, MetricPattern] = Field(
        default={},
        max_length=100,
        description="Metrics to read from the script's output: a regular expression with one group",
    )

    def values(self) -> dict[str, Scalar]:
        """The hyperparameters without their bounds."""
        return {name: found.value for name, found in self.hyperparameters.items()}


class Evaluate(Model):
    """When a model is good enough to be deployed.

    Greater is better, unless ``maximum`` or ``mode: min`` says otherwise.
    """

    metric: MetricName = Field(description="Name of the metric that decides")
    mode: Literal["max", "min"] | None = Field(
        None, description="Whether more (max) or less (min) of the metric is better"
    )
    minimum: float | None = Field(None, description="Least value of a model that is deployed")
    maximum: float | None = Field(None, description="Greatest value of a model that is deployed")
    no_worse_than_champion: float | None = Field(
        None, ge=0, description="By how much the metric may be worse than the deployed model's"
    )

    @field_validator("minimum", "maximum")
    @classmethod
    def _direction(cls, limit: float | None, info: ValidationInfo) -> float | None:
        against = "min" if info.field_name == "minimum" else "max"
        if limit is not None and info.data.get("mode") == against:
            raise wrong(f"contradicts `mode: {against}`")
        if limit is not None and info.data.get("minimum") is not None:
            hint = "`minimum` is for a metric of which more is better, `maximum` for one of less."
            raise wrong("goes with no `minimum`: they say in which direction better lies", hint)
        return limit

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        return self.mode == "max" if self.mode else self.maximum is None


class Gates(Model):
    """What a new version has to keep to, beside the one that answers, while it takes over."""

    error_rate: float = Field(
        0.01, ge=0, le=1, description="By how much its share of failed requests may be greater"
    )
    latency: float = Field(
        1.5, ge=1, le=100, description="By which factor its 95th percentile may be slower"
    )
    golden: bool = Field(True, description="Ask the golden request again and again meanwhile")


class Rollout(Model):
    """How a new version takes over: all at once (``rolling``), or by steps (``canary``)."""

    strategy: Literal["rolling", "canary"] = Field(
        "rolling", description="At once when all of its servers are right, or by steps"
    )
    steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        default=[10, 50],
        min_length=1,
        max_length=20,
        description="Percent of the requests that a canary gets, one step after the other",
    )
    bake: Duration | None = Field(
        None, description="How long each step is watched; default: 1m, 2s if rolling"
    )
    gates: Gates = Field(Gates(), description="What the new version has to keep to")

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: list[int]) -> list[int]:
        if any(later <= step for step, later in pairwise(steps)):
            raise wrong("must rise", "Each step gives the new version more: [10, 50].")
        return steps


class Optimize(Model):
    """How far the answers of a faster form of the model may be from its own."""

    data: SourceName | None = Field(
        None,
        description="Source with holdout.npz or holdout.jsonl; default: what the script leaves "
        "beside the model",
    )
    budget: float = Field(0.01, gt=0, le=1, description="Error that is allowed against FP32")
    metric: Literal["accuracy", "top1", "cosine", "relative"] | None = Field(
        None,
        description="Accuracy lost, changed classes, cosine distance or relative error; default: "
        "what the outputs look like",
    )


def _expand_optimize(value: object) -> object:
    """The short forms ``none`` and ``auto``."""
    if isinstance(value, str) and value not in ("none", "auto"):
        raise wrong(f"is `{value}`", "Allowed: none, auto, or {data: <source>, budget: 0.01}.")
    return {"none": None, "auto": {}}[value] if isinstance(value, str) else value


OptimizeField = Annotated[
    Optimize | None,
    BeforeValidator(
        _expand_optimize, json_schema_input_type=Literal["none", "auto"] | Optimize | None
    ),
]


class Deploy(Model):
    """How the model is served."""

    replicas: int = Field(1, ge=1, le=64, description="Model servers that share the requests")
    optimize: OptimizeField = Field(
        None,
        description="none: served as it is; auto: in the fastest form that answers alike",
        json_schema_extra={"default": "none"},
    )
    rollout: Rollout = Field(Rollout(), description="How a new version takes over")
    keep: int = Field(
        1, ge=0, le=20, description="Earlier versions that stay up: to go back to, to be asked"
    )
    access: Literal["open", "keys"] = Field(
        "open", description="Who may ask the model: everybody, or who has a key"
    )
    allow: list[Literal["code"]] = Field(
        default=[],
        max_length=1,
        description="What the server may run although it came with the model: code (handler.py)",
    )


class After(Model):
    """A schedule that follows other projects."""

    after: list[Asset] = Field(
        min_length=1,
        max_length=50,
        description="Run when each has changed: <project>/model or <project>/<source>",
    )


def _form(value: object) -> str:
    return "<assets>" if isinstance(value, dict | After) else "<cron>"


Schedule = Annotated[
    Annotated[Cron, Tag("<cron>")] | Annotated[After, Tag("<assets>")], Discriminator(_form)
]


class Spec(Model):
    """One project: what it is made from, how, where, and when."""

    name: Name = Field(description="Name of the project, its DAG and its endpoint")
    template: TemplateName = Field(description="Pipeline and its version: train-and-deploy@1")
    description: str = Field("", max_length=1000, description="What the project is, in plain text")
    target: Name = Field("local", description="Where the steps run")
    sources: dict[SourceName, SourceField] = Field(
        default={}, max_length=64, description="What is fetched, by name: path:data/train.csv"
    )
    packages: Packages | None = Field(None, description="What the training script imports")
    train: Train | None = Field(None, description="How the model is made")
    evaluate: Evaluate | None = Field(None, description="When a model is good enough")
    deploy: Deploy = Field(Deploy(), description="How the model is served")
    schedule: Schedule | None = Field(
        None, description='Cron, a preset such as "@weekly", or {after: [<project>/model]}'
    )

    _positions: Positions = PrivateAttr(default_factory=Positions)

    def model_post_init(self, context: Any) -> None:
        if isinstance(context, Positions):
            self._positions = context

    @property
    def positions(self) -> Positions:
        """Where each part was written, for checks that come later."""
        return self._positions

    def __hash__(self) -> int:
        return hash(self.name)

    @field_validator("deploy")
    @classmethod
    def _known_data(cls, deploy: Deploy, info: ValidationInfo) -> Deploy:
        data = deploy.optimize.data if deploy.optimize else None
        if data and "sources" in info.data and data not in info.data["sources"]:
            raise wrong(f"has `optimize.data: {data}`, which is no source of this spec")
        return deploy

    @field_validator("schedule")
    @classmethod
    def _not_itself(cls, schedule: str | After | None, info: ValidationInfo) -> str | After | None:
        own = info.data.get("name")
        if isinstance(schedule, After) and any(a.split("/")[0] == own for a in schedule.after):
            raise wrong("must not follow the project itself")
        return schedule
