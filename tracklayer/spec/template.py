"""Pipeline templates: which steps there are, in what order, and when.

A template is a file ``<name>.v<version>.yaml``: a shape and no code. Adding one takes no Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from tracklayer.errors import Problem, SpecError
from tracklayer.spec.document import parse
from tracklayer.spec.fields import Matches, suggest, wrong
from tracklayer.spec.loader import read_text, validated
from tracklayer.spec.models import Model, Spec
from tracklayer.spec.plan import PlannedStep, resolve
from tracklayer.spec.positions import Loc, Positions

_Found: TypeAlias = Iterator[tuple[Loc, str, str | None]]  # where, what, and what to do


@dataclass(frozen=True, slots=True)
class Run:
    """What a step can do.

    ``section`` is what it reads of the spec, ``required`` whether it cannot do without, ``each``
    whether it is for one entry of the section.
    """

    section: str | None = None
    required: bool = False
    each: bool = False


RUNS = {
    "provision": Run(),
    "configure": Run(),
    "fetch": Run("sources", each=True),
    "packages": Run("packages"),
    "train": Run("train", required=True),
    "evaluate": Run("evaluate", required=True),
    "register": Run(),
    "optimize": Run("deploy"),
    "deploy": Run("deploy"),
    "verify": Run(),
    "release": Run(),
    "noop": Run(),
}
"""Everything that a template's step can run."""

SECTIONS = tuple(dict.fromkeys(run.section for run in RUNS.values() if run.section))
"""Sections of a spec that a step can depend on."""

CONDITIONS = (*SECTIONS, "deploy.optimize")
"""What of a spec can decide whether a step takes place."""


def _known_run(value: str) -> str:
    if value not in RUNS:
        raise wrong(f"is `{value}`, which no step can run", suggest(value, RUNS))
    return value


def _known_section(value: str) -> str:
    if value not in SECTIONS:
        raise wrong(f"is `{value}`, which is no section of a spec", suggest(value, SECTIONS))
    return value


def _known_condition(value: str) -> str:
    if value not in CONDITIONS:
        raise wrong(f"is `{value}`, which is no section of a spec", suggest(value, CONDITIONS))
    return value


def _known_need(value: str) -> str:
    section, _, name = value.partition(".")
    if section != "sources" or not name:
        _known_section(value)
    return value


StepName = Annotated[
    str,
    Matches("^[a-z][a-z0-9_]{0,62}$", "lower-case letters, digits and underscores, letter first"),
]


class Step(Model):
    """One step of a template."""

    run: Annotated[str, AfterValidator(_known_run)] = Field(description="What it does")
    after: list[StepName] = Field(default=[], description="Steps that come before it")
    kind: Literal["task", "setup", "teardown"] = Field(
        "task", description="A teardown runs whatever happened since its setup"
    )
    of: StepName | None = Field(None, description="The setup that this teardown undoes")
    each: Literal["sources"] | None = Field(None, description="One step for each entry of this")
    when: Annotated[str, AfterValidator(_known_condition)] | None = Field(
        None, description="Only if the spec has this"
    )


class Shape(Model):
    """What a template file says."""

    description: str = Field("", description="What the pipeline does, in one sentence")
    requires: list[Annotated[str, AfterValidator(_known_need)]] = Field(
        default=[], description="What a spec must have: a section, or sources.<name>"
    )
    steps: dict[StepName, Step] = Field(min_length=1, max_length=100, description="By name")


@dataclass(frozen=True, slots=True)
class Template:
    """One version of a pipeline."""

    name: str
    version: int
    steps: dict[str, Step]
    description: str = ""
    requires: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def problems(self, spec: Spec) -> list[Problem]:
        """What the spec lacks for this template, and what it says that no step would read."""
        at, found = spec.positions.problem, []
        needs = dict.fromkeys(self.requires, "")
        for name, step in self.steps.items():
            run = RUNS[step.run]
            if run.section and run.required and step.when is None:
                needs.setdefault(run.section, f" for its step `{name}`")
        for need, reason in needs.items():
            section, _, name = need.partition(".")
            if not has(spec, section) or (name and name not in spec.sources):
                message = f"the template {self} needs `{need}`{reason}"
                found.append(at(("template",), message, f"Add `{need}` to the spec."))
        used = {RUNS[step.run].section for step in self.steps.values()}
        for section in SECTIONS:
            default = Spec.model_fields[section].get_default(call_default_factory=True)
            if section not in used and getattr(spec, section) != default:
                message = f"`{section}` is not used by the template {self}"
                hint = "Delete it, or choose a template with a step that reads it."
                found.append(at((section,), message, hint, key=True))
        return sorted(found, key=lambda problem: (problem.line, problem.column))

    def plan(self, spec: Spec) -> list[PlannedStep]:
        """The steps of this spec's DAG, each after all that it waits for.

        The same spec gives the same list in every process.

        :raises SpecError: the spec and the template do not fit, see :meth:`problems`.
        """
        if found := self.problems(spec):
            raise SpecError(found)
        sections = {section for section in CONDITIONS if has(spec, section)}
        return resolve(self.steps, sections, {"sources": list(spec.sources)})


def has(spec: Spec, section: str) -> bool:
    """Whether the spec has a section, or a part of one, with something in it."""
    return attrgetter(section)(spec) not in (None, {})


def known_templates(folders: list[Path]) -> dict[str, Path]:
    """The files of all templates by name and version; the first folder that has one wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.v*.yaml")):
            if match := re.fullmatch(r"([a-z][a-z0-9-]*)\.v([1-9][0-9]*)\.yaml", path.name):
                found.setdefault(f"{match[1]}@{match[2]}", path)
    return found


def load_template(
    name: str, folders: list[Path], *, positions: Positions | None = None
) -> Template:
    """Read a template such as ``train-and-deploy@1``.

    :param positions: those of the spec that names the template, for the error if there is none.
    :raises SpecError: there is none of this name and version, or its file is wrong.
    """
    known = known_templates(folders)
    if name not in known:
        at = (positions or Positions()).problem
        hint = suggest(name, known)
        raise SpecError([at(("template",), f"there is no template `{name}`", hint)])
    path = known[name]
    document = parse(read_text(path), str(path))
    shape = validated(document, Shape)
    if problems := _graph_problems(shape.steps, document.positions):
        raise SpecError(problems)
    base, _, version = name.partition("@")
    return Template(base, int(version), shape.steps, shape.description, shape.requires)


def _graph_problems(steps: dict[str, Step], positions: Positions) -> list[Problem]:
    """What is wrong with the steps taken together, in file order."""
    found = [
        positions.problem(("steps", name, *loc), message, hint)
        for name, step in steps.items()
        for loc, message, hint in (*_after(name, step, steps), *_kind(name, step, steps))
    ]
    try:
        TopologicalSorter({name: step.after for name, step in steps.items()}).prepare()
    except CycleError as error:
        cycle = error.args[1]
        message = f"these steps wait for each other: {' -> '.join(cycle)}"
        found.append(positions.problem(("steps", cycle[0]), message, key=True))
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _after(name: str, step: Step, steps: dict[str, Step]) -> _Found:
    for index, other in enumerate(step.after):
        if other not in steps:
            message = f"`{name}` comes after `{other}`, which is no step"
            yield ("after", index), message, suggest(other, steps)
        elif steps[other].kind == "teardown" and step.kind != "teardown":
            yield ("after", index), f"`{name}` cannot wait for `{other}`, a teardown", None
        elif other in step.after[:index]:
            yield ("after", index), f"`{name}` names `{other}` twice", None


def _kind(name: str, step: Step, steps: dict[str, Step]) -> _Found:
    setups = [other for other, found in steps.items() if found.kind == "setup"]
    if step.kind == "teardown" and step.of not in setups:
        message = f"the teardown `{name}` needs `of:` with the setup that it undoes"
        yield ("of",), message, suggest(step.of or "", setups)
    if step.of and step.kind != "teardown":
        yield ("of",), f"`of` is for a teardown, and `{name}` is a {step.kind}", None
    if step.each and step.kind != "task":
        yield ("each",), f"`each` is for a task, and `{name}` is a {step.kind}", None
    run = RUNS[step.run]
    if run.each and step.each != run.section:
        yield ("run",), f"`run: {step.run}` is for one entry", f"Add `each: {run.section}`."
    if step.each and not run.each:
        yield ("each",), f"`run: {step.run}` is not for one entry", "Delete `each`."
