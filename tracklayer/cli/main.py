"""The entry point: the commands, and how each way to fail is told.

Exit codes: 0; those of :mod:`tracklayer.errors`; 64 for a command line that is wrong
(EX_USAGE of sysexits.h); 70 for a fault of the program (EX_SOFTWARE); 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from tracklayer.cli import (
    demo,
    fetch,
    keys,
    lineage,
    platform,
    projects,
    rollouts,
    runs,
    services,
    store,
    usage,
)
from tracklayer.cli.output import show_error
from tracklayer.errors import TracklayerError

_USAGE, _SOFTWARE, _INTERRUPTED = 64, 70, 130

app = typer.Typer(
    name="tracklayer",
    help="From one spec file to a live model endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _panel, _commands in (
    ("A project", (projects.new, projects.validate, projects.schema, fetch.fetch, projects.push)),
    ("Its runs", (runs.run, runs.runs, runs.logs)),
    ("What it serves", (services.status, services.predict, lineage.lineage, usage.usage)),
    (
        "Its versions",
        (rollouts.history, rollouts.rollback, rollouts.promote, rollouts.pause, rollouts.resume),
    ),
    ("The platform", (platform.up, platform.down, platform.doctor, demo.demo)),
):
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(keys.app, rich_help_panel="What it serves")
app.add_typer(store.app, rich_help_panel="The platform")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(version("tracklayer") + "\n")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    pass


def run() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign shows another
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    sys.exit(code)


def main(arguments: list[str]) -> int:
    """Run one command line.

    :returns: its exit code; every error has been told.
    """
    as_json = "--json" in arguments
    try:
        code = app(arguments, prog_name="tracklayer", standalone_mode=False)
    except TracklayerError as error:
        show_error(error, as_json=as_json)
        return error.exit_code
    except TyperException as error:
        usage = TracklayerError(error.format_message(), hint="`tracklayer --help` explains.")
        usage.exit_code = _USAGE
        show_error(usage, as_json=as_json)
        return _USAGE
    except BrokenPipeError:  # whoever read our output has gone: nobody to tell anything
        _forget_stdout()
        return 1
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last one to see it
        message = f"{type(error).__name__}: {error}".partition("\n")[0]
        fault = TracklayerError(
            f"This is a fault of tracklayer: {message}", hint=f"The details are in {_log(error)}."
        )
        fault.exit_code = _SOFTWARE
        show_error(fault, as_json=as_json)
        return _SOFTWARE
    if code == _INTERRUPTED:
        sys.stderr.write("Interrupted.\n")
    return code if isinstance(code, int) else 0


def _log(error: Exception) -> Path:
    """Write the traceback where only its owner can read it."""
    text = "".join(traceback.format_exception(error))
    text = f"{datetime.now(UTC).isoformat()} tracklayer {' '.join(sys.argv[1:2])}\n{text}\n"
    try:
        from tracklayer.settings import settings

        path = settings().logs / "cli.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except Exception:  # noqa: BLE001 - the home may be what is wrong
        descriptor, name = tempfile.mkstemp(prefix="tracklayer-", suffix=".log")
        path = Path(name)
    with os.fdopen(descriptor, "a") as stream:
        stream.write(text)
    return path


def _forget_stdout() -> None:
    """Keep the interpreter from flushing what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
