"""What can only be checked beside the project's other files, or other projects."""

from __future__ import annotations

from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tracklayer.errors import Problem, SpecError
from tracklayer.spec.document import short
from tracklayer.spec.fields import suggest
from tracklayer.spec.models import After, Spec
from tracklayer.spec.positions import Loc
from tracklayer.spec.template import load_template


def check_project(
    spec: Spec,
    folder: Path | None = None,
    *,
    templates: list[Path] | None = None,
    targets: Collection[str] | None = None,
) -> list[Problem]:
    """Everything that is wrong with a project although its spec was read, in file order.

    :param folder: the project's folder, with the spec's scripts and ``path:`` sources.
    :param templates: folders of templates.
    :param targets: the known targets.

    What is not given is not checked.
    """
    at, found = spec.positions.problem, []
    if folder:
        found += _missing_files(spec, folder)
    if targets is not None and spec.target not in targets:
        message = f"there is no target `{spec.target}`"
        found.append(at(("target",), message, suggest(spec.target, targets)))
    if templates is not None:
        try:
            template = load_template(spec.template, templates, positions=spec.positions)
            found += template.problems(spec)
        except SpecError as error:
            found += error.problems
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _missing_files(spec: Spec, folder: Path) -> list[Problem]:
    found = []
    if spec.train:
        found += _missing(spec, ("train", "script"), spec.train.script, folder, script=True)
    for name, source in spec.sources.items():
        scheme, _, path = source.uri.partition(":")
        if scheme == "path":
            found += _missing(spec, ("sources", name), path, folder, script=False)
    return found


def _missing(spec: Spec, loc: Loc, path: str, folder: Path, *, script: bool) -> list[Problem]:
    """The problem with a path that must lead to something inside of the project."""
    at, wanted = spec.positions.problem, folder / path
    try:
        inside = wanted.resolve().is_relative_to(folder.resolve())
        there = wanted.is_file() if script else wanted.exists()
        beside = wanted.parent if wanted.parent.is_dir() else folder
        names = (p.relative_to(folder) for p in beside.iterdir() if not script or p.suffix == ".py")
        near = sorted(map(str, names)) if inside and not there else []
    except (OSError, RuntimeError) as error:  # a name too long, a link to itself
        return [at(loc, f"`{short(path)}` cannot be looked at: {error}")]
    if not inside or Path(path).is_absolute() or ".." in Path(path).parts:
        hint = "Put it into the project's folder, or fetch it from an address."
        return [at(loc, f"`{path}` lies outside of the project", hint)]
    if there:
        return []
    kind = "script" if script else "file or folder"
    hint = suggest(path, near, label="There are")
    return [at(loc, f"there is no {kind} `{path}` in the project", hint)]


def find_cycle(specs: dict[str, Spec]) -> list[str] | None:
    """Projects that wait for each other through ``schedule.after``, each after the next one.

    The list starts with the first of them by name; a project that nobody waits for, or that is
    not among ``specs``, is in no cycle.
    """
    graph = {
        name: sorted({asset.split("/")[0] for asset in spec.schedule.after})
        for name, spec in sorted(specs.items())
        if isinstance(spec.schedule, After)
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib gives each before the next, with the first one again at the end.
        cycle: list[str] = list(reversed(error.args[1][1:]))
        start = cycle.index(min(cycle))
        return cycle[start:] + cycle[:start]
    return None
