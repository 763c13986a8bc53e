"""Whether this platform can run a project: it has the template, the target and the sources."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from tracklayer.errors import Problem, SourceError, SpecError
from tracklayer.settings import resource, settings
from tracklayer.sources import parse
from tracklayer.spec import PlannedStep, Spec, Template, check_project, load_template
from tracklayer.targets import known


def plan(spec: Spec) -> list[PlannedStep]:
    """The steps of a spec's DAG, each after all that it waits for.

    :raises SpecError: there is no such template, or the spec does not fit it.
    """
    try:
        template = _template(spec.template)
    except SpecError:  # once more, to say where the spec names it
        template = load_template(spec.template, _template_folders(), positions=spec.positions)
    return template.plan(spec)


def problems(spec: Spec, folder: Path | None = None) -> list[Problem]:
    """Everything that is wrong with a spec that could be read, in file order.

    :param folder: of the project, to look for the files that the spec names; default: they are
        not looked for.
    """
    found = check_project(spec, folder, templates=_template_folders(), targets=known())
    for name, source in spec.sources.items():
        at = partial(spec.positions.problem, ("sources", name))
        try:
            fixed = parse(source.uri).pinned
        except SourceError as error:
            found.append(at(error.message, error.hint))
            continue
        if source.allow and not fixed:
            message = f"`allow` needs a source that cannot change, and {source.uri!r} can"
            found.append(
                at(message, "Name its commit, version or digest: what was looked at once.")
            )
    return sorted(found, key=lambda problem: (problem.line, problem.column))


@cache
def _template_folders() -> list[Path]:
    own = settings().templates
    return [*([own] if own else []), resource("dags/templates")]


@cache
def _template(name: str) -> Template:
    return load_template(name, _template_folders())
