"""Commands on a project's folder: new, validate, schema, push."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracklayer.cli.options import Json, TokenFile, Url, connect
from tracklayer.cli.output import Output
from tracklayer.errors import PlatformError, ProjectError, SpecError

if TYPE_CHECKING:
    from tracklayer.cli.client import Platform
    from tracklayer.cli.transport import Data
    from tracklayer.spec import Spec

SPEC_FILE = "tracklayer.yaml"
_VISIBLE = 60.0  # seconds until a saved project must be a DAG

Folder = Annotated[Path, typer.Argument(help=f"Folder of the project, or its {SPEC_FILE}.")]


def new(
    name: Annotated[str, typer.Argument(help="Name of the project and of its new folder.")],
    template: Annotated[
        str, typer.Option("--template", help="Pipeline of the project.")
    ] = "train-and-deploy@1",
    as_json: Json = False,
) -> None:
    """Make a folder with a small project that runs."""
    from tracklayer.cli.scaffold import scaffold

    folder = scaffold(name, template, Path.cwd())
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    Output(as_json=as_json).result(
        {"project": name, "folder": str(folder), "files": files},
        f"Made {name}/ with {', '.join(files)}.",
        f"Next: `tracklayer push {name}`, then `tracklayer run {name} --follow`.",
    )


def validate(path: Folder = Path(), as_json: Json = False) -> None:
    """Check a project and show everything that is wrong with it."""
    spec = checked(folder_of(path))
    Output(as_json=as_json).result(
        {"project": spec.name, "valid": True}, f"{spec.name} is valid ({spec.template})."
    )


def schema(as_json: Json = False) -> None:  # noqa: ARG001 - it is JSON in any case
    """Print the JSON Schema of tracklayer.yaml, for editors."""
    from tracklayer.spec import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")


def push(
    path: Folder = Path(),
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until Airflow shows the project.")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Save a project folder on the platform: a commit, and the next runs use it."""
    folder = folder_of(path)
    output = Output(as_json=as_json)
    spec = checked(folder, remote=url is not None)
    with connect(url, token_file) as platform:
        saved = push_folder(platform, spec.name, folder, output, wait=not no_wait)
    output.result(saved, f"Next: `tracklayer run {spec.name} --follow`.")


def push_folder(
    platform: Platform, name: str, folder: Path, output: Output, *, wait: bool = True
) -> Data:
    """Save a folder that was checked, and say so.

    :raises SpecError: the platform finds the spec wrong among its other projects.
    :raises ProjectError: it has something that cannot be saved.
    """
    from tracklayer.cli.archive import pack

    saved = platform.save(name, pack(folder))
    done = "Saved" if saved["changed"] else "Unchanged:"
    output.say(f"{done} {name} at commit {saved['commit'][:12]}.")
    if wait:
        _wait_until_visible(platform, name, saved)
    return saved


def folder_of(path: Path) -> Path:
    """The folder of a project that was named by itself or by its spec."""
    return path.parent if path.name == SPEC_FILE and path.is_file() else path


def checked(folder: Path, *, remote: bool = False) -> Spec:
    """The spec of a project in a folder, if nothing is wrong with it.

    :param remote: which templates and targets there are is for another platform to say.
    :raises SpecError: with every problem.
    :raises ProjectError: there is no such folder.
    """
    from tracklayer.platform.check import problems
    from tracklayer.spec import check_project, load

    if not folder.is_dir():
        raise ProjectError(f"There is no folder {folder}.")
    if not (folder / SPEC_FILE).exists():
        hint = "`tracklayer new NAME` makes a project to begin with."
        raise ProjectError(f"The folder {folder.absolute()} has no {SPEC_FILE}.", hint=hint)
    spec = load(folder / SPEC_FILE)
    if found := check_project(spec, folder) if remote else problems(spec, folder):
        raise SpecError(found)
    return spec


def _wait_until_visible(platform: Platform, name: str, saved: Data) -> None:
    """Wait until a run that is started now would use what was saved.

    :raises ProjectError: Airflow could not make a DAG of it.
    :raises PlatformError: it takes too long.
    """
    when = datetime.fromisoformat(saved["time"])
    deadline = time.monotonic() + _VISIBLE
    while not platform.visible(name, saved["commit"]):
        for error in platform.import_errors(name):
            if datetime.fromisoformat(error["timestamp"]) > when:
                said = error["stack_trace"].strip().rpartition("\n")[2]
                raise ProjectError(f"Airflow cannot make a DAG of {name}: {said}")
        if time.monotonic() > deadline:
            hint = "`tracklayer status` shows whether all of the platform runs."
            message = f"{name} is saved, but not yet a DAG after {_VISIBLE:.0f} s."
            raise PlatformError(message, hint=hint)
        time.sleep(0.2)
