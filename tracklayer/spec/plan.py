"""From a template's steps to the steps of one DAG. Pure: no file, no clock, no order of a set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tracklayer.spec.template import Step


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One task of a DAG.

    ``id`` is the task's, ``run`` what it does, ``after`` the ids that it waits for, ``of`` the id
    of the setup that a teardown undoes, ``item`` the entry (of ``sources``) that it is for.
    """

    id: str
    run: str
    after: tuple[str, ...] = ()
    kind: Literal["task", "setup", "teardown"] = "task"
    of: str | None = None
    item: str | None = None


def resolve(
    steps: Mapping[str, Step], sections: Collection[str], items: Mapping[str, list[str]]
) -> list[PlannedStep]:
    """The steps that take place, in an order in which each comes after all it waits for.

    What waited for a step that is left out waits for that step's predecessors instead. A teardown
    that names no predecessor waits for every step that nothing else waits for.

    :param steps: an acyclic graph of steps.
    :param sections: what the spec has; a step whose ``when`` is not among them is left out.
    :param items: the entries that an ``each`` goes through.
    """

    def takes_place(name: str) -> bool:
        step = steps[name]
        return (step.when is None or step.when in sections) and (
            step.of is None or takes_place(step.of)
        )

    @cache
    def ids(name: str) -> tuple[str, ...]:
        """The tasks that stand for a step; for a step left out, those of its predecessors."""
        step = steps[name]
        if takes_place(name):
            own = tuple(f"{name}-{item}" for item in items[step.each]) if step.each else (name,)
            if own:
                return own
        return before(step)

    def before(step: Step) -> tuple[str, ...]:
        # A dict keeps the order of the file and each id once.
        return tuple(dict.fromkeys(task for other in step.after for task in ids(other)))

    planned: list[PlannedStep] = []
    for name in _ordered(steps):
        step = steps[name]
        if not takes_place(name):
            continue
        after = before(step)
        if step.kind == "teardown" and not step.after:
            waited_for = {other for done in planned for other in done.after}
            after = tuple(
                done.id for done in planned if done.kind != "teardown" and done.id not in waited_for
            )
        entries = items[step.each] if step.each else [None]
        for item in entries:
            task = name if item is None else f"{name}-{item}"
            planned.append(PlannedStep(task, step.run, after, step.kind, step.of, item))
    return planned


def _ordered(steps: Mapping[str, Step]) -> list[str]:
    """Teardowns last, predecessors first, and otherwise as in the file."""
    left = sorted(steps, key=lambda name: steps[name].kind == "teardown")
    ordered: list[str] = []
    while left:
        ready = next(name for name in left if all(other in ordered for other in steps[name].after))
        left.remove(ready)
        ordered.append(ready)
    return ordered
