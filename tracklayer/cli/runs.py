"""Commands on runs: run, runs, logs."""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracklayer.cli.options import Json, TokenFile, Url, connect
from tracklayer.cli.output import Output, moment, seconds, table
from tracklayer.errors import JobError, ProjectError

if TYPE_CHECKING:
    from tracklayer.cli.client import Platform, Step
    from tracklayer.cli.transport import Data

_INTERVAL = 0.5  # seconds between two looks at a log

Name = Annotated[str, typer.Argument(help="Name of the project.")]


def run(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show its steps until it ends.")
    ] = False,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A hyperparameter of this run."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Take the sources from the store; no network.")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Run a project's pipeline now. With --follow, exit code 8 says that it failed."""
    output = Output(as_json=as_json)
    with connect(url, token_file) as platform:
        started = start(platform, name, values or [], offline=offline)
        run_id = started["dag_run_id"]
        if not follow:
            output.result(
                {"project": name, "run": run_id, "state": started["state"]},
                f"Started {run_id}.",
                f"Follow it: `tracklayer logs {name} --run {run_id} --follow`.",
            )
            return
        outcome = watch(platform, name, run_id, output)
    if as_json:
        output.result(outcome.document())
        if outcome.state != "success":
            raise typer.Exit(JobError.exit_code)
    outcome.raise_for_failure()
    output.say(f"Done in {seconds(outcome.seconds)}.")


def start(platform: Platform, name: str, values: list[str], *, offline: bool = False) -> Data:
    """Start a run with hyperparameters given as ``key=value``.

    :param offline: each source is the revision that its last fetch brought, from the store.
    :raises ProjectError: there is no such project, or it does not take such a value.
    """
    dag = platform.dag(name)
    if dag is None or dag["is_stale"]:
        platform.project(name)  # says so if there is no such project
        hint = f"What is wrong: `tracklayer status {name}`."
        raise ProjectError(f"The project {name} has no version that could run.", hint=hint)
    conf = dict(_value(text, dag["params"] or {}) for text in values)
    if offline:
        from tracklayer.spec import OFFLINE

        conf[OFFLINE] = True
    if dag["is_paused"]:
        platform.unpause(name)
    return platform.trigger(name, conf)


def watch(platform: Platform, name: str, run_id: str, output: Output) -> Any:
    """Follow a run; interrupted, it says that the run goes on."""
    from tracklayer.cli.follow import follow

    try:
        return follow(platform, name, run_id, output)
    except KeyboardInterrupt:
        output.say(
            f"The run {run_id} goes on. See it: `tracklayer logs {name} --run {run_id} --follow`."
        )
        raise


def runs(
    name: Annotated[str | None, typer.Argument(help="Name of a project; default: all.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from tracklayer.cli.client import time_of

    with connect(url, token_file) as platform:
        found = [_summary(data) for data in platform.runs(name, limit=limit)]
    view = table("project", "run", "state", "started", ">time", "commit", "by")
    for row in found:
        view.add_row(
            row["project"],
            row["run"],
            row["state"],
            moment(time_of(row["started"])),
            seconds(row["seconds"]),
            (row["commit"] or "")[:12],
            row["by"] or "",
        )
    Output(as_json=as_json).result(found, view if found else "There are no runs yet.")


def logs(
    name: Name,
    step: Annotated[str | None, typer.Argument(help="Name of a step; default: all.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Default: the newest run.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run or the step ends.")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Print the log of a run's steps. With --json, one object a line."""
    output = Output(as_json=as_json)
    with connect(url, token_file) as platform:
        _print_logs(platform, name, run_id or _newest(platform, name), step, follow, output)


def _print_logs(
    platform: Platform, name: str, run_id: str, only: str | None, follow: bool, output: Output
) -> None:
    """Each step's log under its name; several that run at once take turns."""
    from tracklayer.cli.client import ENDED, STEP_ENDED
    from tracklayer.cli.logs import LogReader

    order = platform.order(name)
    readers: dict[tuple[str, int], LogReader] = {}
    shown: str | None = None
    done: set[tuple[str, int]] = set()
    while True:
        # The states first: what was written before the end is then read in any case.
        ended = platform.run(name, run_id)["state"] in ENDED
        steps = _selected(platform.steps(name, run_id, order), only, name, run_id)
        for found in steps:
            key = (found.name, found.tries)
            if found.tries == 0 or key in done:
                continue
            reader = readers.setdefault(key, LogReader(platform, name, run_id, found))
            for line in reader.read():
                if shown != found.name and only is None and not output.as_json:
                    output.say(f"--- {found.name}")
                shown = found.name
                output.line(line.document(found.name), line.styled())
            if found.state in STEP_ENDED:
                done.add(key)
        if only is not None:
            ended = ended or all(found.state in STEP_ENDED for found in steps)
        if ended or not follow:
            return
        time.sleep(_INTERVAL)


def _selected(steps: list[Step], only: str | None, name: str, run_id: str) -> list[Step]:
    if only is None:
        return steps
    if found := [step for step in steps if only in (step.name, step.task)]:
        return found
    known = ", ".join(step.name for step in steps)
    message = f"The run {run_id} of {name} has no step {only}."
    raise ProjectError(message, hint=f"Its steps: {known}." if known else None)


def _newest(platform: Platform, name: str) -> str:
    if found := platform.runs(name, limit=1):
        return str(found[0]["dag_run_id"])
    hint = f"Start one: `tracklayer run {name}`."
    raise ProjectError(f"The project {name} has no run yet.", hint=hint)


def _summary(data: Data) -> Data:
    return {
        "project": data["dag_id"],
        "run": data["dag_run_id"],
        "state": data["state"],
        "started": data["start_date"],
        "seconds": data["duration"],
        "commit": data["bundle_version"],
        "by": data["triggering_user_name"],
    }


def _value(text: str, params: Data) -> tuple[str, Any]:
    """One ``key=value`` with the type that the project gives that hyperparameter.

    :raises ProjectError: there is no such hyperparameter, or it is of another type.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ProjectError(f"`--set {text}` has no value.", hint="Write it as KEY=VALUE.")
    if key not in params:
        near = difflib.get_close_matches(key, params, 1)
        known = f"Known: {', '.join(params)}." if params else "The project has none."
        hint = f"Did you mean {near[0]}? {known}" if near else known
        raise ProjectError(f"There is no hyperparameter {key}.", hint=hint)
    kind = params[key].get("schema", {}).get("type", "string")
    try:
        return key, _READ.get(kind, str)(value)
    except (ValueError, KeyError):
        raise ProjectError(f"{key} must be of type {kind}, not {value!r}.") from None


_READ: dict[str, Any] = {
    "integer": int,
    "number": float,
    "boolean": {"true": True, "false": False}.__getitem__,
}
