"""What can only be said of a spec among the other projects of its repository."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from tracklayer.errors import Problem, SpecError
from tracklayer.spec import After, Spec, find_cycle, loads

SPEC_FILE = "tracklayer.yaml"


def check_repository(texts: dict[str, str]) -> dict[str, list[Problem] | Spec]:
    """Each project folder's spec, or all that is wrong with it.

    Checked here, beside each spec by itself: the folder has the name of the project, so that no
    two projects have one name; what it follows is there; no project follows itself in the end.

    :param texts: project folder to the text of its ``tracklayer.yaml``.
    """
    loaded = {folder: _load(text, f"{folder}/{SPEC_FILE}") for folder, text in texts.items()}
    specs = {folder: spec for folder, spec in loaded.items() if isinstance(spec, Spec)}
    problems = {
        folder: [*_name_problems(folder, spec, specs), *_after_problems(spec, loaded)]
        for folder, spec in specs.items()
    }
    for folder, problem in _cycles({f: spec for f, spec in specs.items() if f == spec.name}):
        problems[folder].append(problem)
    return {
        folder: problems.get(folder) or (found if isinstance(found, Spec) else found.problems)
        for folder, found in loaded.items()
    }


@lru_cache(maxsize=4096)  # a repository is checked at each commit, and few of its specs change
def _load(text: str, file: str) -> Spec | SpecError:
    try:
        return loads(text, file)
    except SpecError as error:
        return error


def _name_problems(folder: str, spec: Spec, specs: dict[str, Spec]) -> Iterator[Problem]:
    if spec.name != folder:
        message = f"`name` is {spec.name}, but the folder is {folder}"
        hint = f"Write `name: {folder}`, or rename the folder."
        if spec.name in specs:
            message += f", and the folder {spec.name} has a project of that name"
            hint = f"Two projects of one name: write `name: {folder}`, or delete one of them."
        yield spec.positions.problem(("name",), message, hint)


def _after_problems(spec: Spec, loaded: dict[str, Spec | SpecError]) -> Iterator[Problem]:
    if not isinstance(spec.schedule, After):
        return
    for index, asset in enumerate(spec.schedule.after):
        name, _, part = asset.partition("/")
        other = loaded.get(name)
        message = hint = None
        if other is None:
            message = f"there is no project {name} to follow"
            known = ", ".join(sorted(set(loaded) - {spec.name})[:10])
            hint = f"Known: {known}." if known else "Save that one first."
        elif isinstance(other, Spec) and part not in ("model", *other.sources):
            message = f"the project {name} has no {part} to follow"
            hint = f"It has: {', '.join(['model', *other.sources])}."
        if message:
            yield spec.positions.problem(("schedule", "after", index), message, hint)


def _cycles(specs: dict[str, Spec]) -> Iterator[tuple[str, Problem]]:
    """Every member of every cycle. Who only waits for a cycle is no part of it."""
    while cycle := find_cycle(specs):
        members = list(dict.fromkeys(cycle))
        way = " → ".join([*members, members[0]])
        for name in members:
            spec = specs[name]
            problem = spec.positions.problem(
                ("schedule", "after"),
                f"these projects wait for each other: {way}",
                "Take one of them out of `after`.",
            )
            yield name, problem
        specs = {name: spec for name, spec in specs.items() if name not in members}
