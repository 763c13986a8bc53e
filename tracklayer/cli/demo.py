"""The command demo: the example project, from its spec to an answered prediction."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer.cli.options import Json, connect
from tracklayer.cli.output import Output, seconds, table

if TYPE_CHECKING:
    from tracklayer.cli.client import Platform
    from tracklayer.cli.follow import Outcome
    from tracklayer.cli.transport import Data

_EXAMPLE = "examples/digits"
_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def demo(as_json: Json = False) -> None:
    """Start the platform here and take the example from its spec to a live endpoint."""
    output = Output(as_json=as_json)
    try:
        _demo(output)
    except KeyboardInterrupt:
        output.say(_what_still_runs())
        # Not typer.Exit: this has been said, and nothing more is to be.
        sys.exit(_INTERRUPTED)


def _demo(output: Output) -> None:
    from tracklayer import platform
    from tracklayer.cli.projects import checked, push_folder
    from tracklayer.cli.runs import start, watch
    from tracklayer.cli.services import answer_lines, ask
    from tracklayer.settings import resource

    folder = resource(_EXAMPLE)
    name = checked(folder).name
    platform.up(output.say)
    with connect(None, None) as client:
        push_folder(client, name, folder, output)
        started = start(client, name, [])
        output.say(f"Started the run {started['dag_run_id']}.")
        outcome = watch(client, name, started["dag_run_id"], output)
        outcome.raise_for_failure()
        summary = _summary(client, outcome)
    request = folder / "request.json"
    answer = ask(summary["endpoint"], name, request.read_bytes(), str(request))
    output.result(
        summary | {"answer": answer},
        "",
        _steps(outcome),
        "",
        f"Accuracy  {summary['accuracy']:.4f}",
        f"Model     {name}, version {summary['version']}",
        f"Answer    {answer_lines(answer)[0]}",
        *summary["addresses"],
        f"Endpoint  {summary['endpoint']}",
        "",
        f"Ask it again: `{_program()} predict {name} {_near(request)}`",
        f"Stop all:     `{_program()} down`",
    )


def _summary(client: Platform, outcome: Outcome) -> Data:
    """What the run came to, from its record."""
    from tracklayer.cli.platform import where_to_look

    steps: dict[str, Any] = client.record(outcome.project, outcome.run)["steps"]
    return outcome.document() | {
        "seconds": outcome.seconds,
        "accuracy": steps["evaluate"]["metrics"]["accuracy"],
        "version": steps["register"]["version"],
        "endpoint": client.project(outcome.project)["endpoint"]["url"],
        "addresses": where_to_look()[:2],
    }


def _steps(outcome: Outcome) -> Any:
    view = table("step", "state", ">time")
    for step in outcome.steps:
        view.add_row(step.name, step.state, seconds(step.seconds))
    view.add_row("all", outcome.state, seconds(outcome.seconds), style="bold")
    return view


def _program() -> str:
    """What starts this program when it is typed here: not everybody has it on the PATH."""
    return "tracklayer" if shutil.which("tracklayer") else _near(Path(sys.argv[0]))


def _near(path: Path) -> str:
    """A path as a person here would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _what_still_runs() -> str:
    from tracklayer import platform

    running = [found.name for found in platform.status() if found.pid]
    if not running:
        return f"Interrupted. Nothing of the platform runs; `{_program()} demo` begins again."
    names = ", ".join(running)
    return f"Interrupted. Still running: {names}. `{_program()} down` stops them."
