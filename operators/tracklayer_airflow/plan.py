"""Which steps a spec's DAG has: its template, resolved."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tracklayer.errors import SpecError
from tracklayer.settings import resource, settings
from tracklayer.spec import PlannedStep, Spec, Template, load_template


@cache
def template_folders() -> tuple[Path, ...]:
    """Where templates lie: the platform's own and those of ``TRACKLAYER_TEMPLATES``."""
    own = settings().templates
    return ((own,) if own else ()) + (resource("dags/templates"),)


@cache
def _template(name: str) -> Template:
    return load_template(name, list(template_folders()))


def plan(spec: Spec) -> list[PlannedStep]:
    """The steps of a spec's DAG, each after all that it waits for.

    :raises SpecError: there is no such template, or the spec does not fit it.
    """
    try:
        template = _template(spec.template)
    except SpecError:
        template = load_template(spec.template, list(template_folders()), positions=spec.positions)
    return template.plan(spec)
