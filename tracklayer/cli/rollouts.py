"""Commands on the versions that serve: rollback, promote, pause, resume, history.

All of them work on this machine without Airflow, MLflow or a network.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tracklayer.cli.options import Json
from tracklayer.cli.output import Output, moment, table
from tracklayer.errors import ServiceError, TrackingError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tracklayer.gateway.endpoint import Author
    from tracklayer.gateway.steering import Steering
    from tracklayer.tracking.ledger import Entry

Name = Annotated[str, typer.Argument(help="Name of the project.")]


def rollback(
    name: Name,
    to: Annotated[
        int | None, typer.Option("--to", min=0, help="Version; default: the one before.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")] = "",
    as_json: Json = False,
) -> None:
    """Go back to an earlier version, at once; it ends a rollout that is under way."""
    output = Output(as_json=as_json)
    version = _steering(name).rollback(to, _author(), reason, output.say)
    said = f"Version {version} of {name} answers all requests."
    output.result({"project": name, "version": version}, said)
    _tell_mlflow(name)


def promote(name: Name, as_json: Json = False) -> None:
    """Give all requests to the version that is being rolled out, without waiting any longer."""
    version, now = _steering(name).promote(_author())
    said = f"Version {version} of {name} answers all requests."
    if not now:
        said = f"Version {version} of {name} gets all requests as soon as it is proved right."
    Output(as_json=as_json).result({"project": name, "version": version}, said)


def pause(name: Name, as_json: Json = False) -> None:
    """Hold a rollout at its present step; the version is still watched."""
    held = _steering(name).pause(_author())
    said = f"Version {held.version} of {name} stays at {held.share}% until `tracklayer resume`."
    data = {"project": name, "version": held.version, "share": held.share}
    Output(as_json=as_json).result(data, said)


def resume(name: Name, as_json: Json = False) -> None:
    """Let a paused rollout go on."""
    held = _steering(name).resume(_author())
    data = {"project": name, "version": held.version, "share": held.share}
    said = f"The rollout of version {held.version} of {name} goes on."
    Output(as_json=as_json).result(data, said)


def history(
    name: Name,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="Who answered then: 2026-03-01, 2026-03-01T14:30, with +02:00 or Z if it is not "
            "this machine's time.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was deployed, by whom and why; or who answered at a given time."""
    from tracklayer.platform.services import ledger

    output = Output(as_json=as_json)
    found = ledger().read()
    for problem in found.problems:
        sys.stderr.write(f"Warning: the ledger is damaged: {problem}\n")
    entries = found.of(name)
    if not entries:
        raise ServiceError(f"No version of {name} was ever deployed here.")
    if at is None:
        data = [_document(entry) for entry in entries]
        output.result({"project": name, "events": data, "problems": found.problems}, _view(entries))
        return
    when = _moment(at)
    entry = found.at(name, when)
    shares = entry.shares if entry else {}
    output.result(
        {
            "project": name,
            "at": when.isoformat(),
            "shares": shares,
            "entry": _document(entry) if entry else None,
            "problems": found.problems,
        },
        f"{moment(when)}: {_answered(shares)}",
        *([f"since {moment(entry.time)}: {_told(entry)}"] if entry else []),
    )


def _steering(name: str) -> Steering:
    from tracklayer.gateway.steering import Steering
    from tracklayer.platform.services import endpoint

    return Steering(endpoint(name))


def _author() -> Author:
    import getpass

    from tracklayer.gateway.endpoint import Author

    return Author(getpass.getuser())


def _tell_mlflow(name: str) -> None:
    """MLflow's champion follows; the gateway is what counts."""
    from tracklayer.platform.services import champion_follows

    try:
        champion_follows(name)
    except TrackingError as error:
        later = "Its alias `champion` follows at the next deployment."
        sys.stderr.write(f"MLflow was not told: {error.message} {later}\n")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time. Write it as 2026-03-01 or 2026-03-01T14:30.", param_hint="--at"
        ) from None


def _view(entries: list[Entry]) -> RenderableType:
    view = table("time", "event", ">version", "answers", "by", "run", "commit", "reason")
    for entry in entries:
        view.add_row(
            moment(entry.time),
            entry.event,
            str(entry.version),
            _answered(entry.shares, short=True),
            entry.actor,
            entry.run or "",
            (entry.commit or "")[:12],
            entry.reason,
        )
    return view


def _answered(shares: dict[int, float], *, short: bool = False) -> str:
    if not shares:
        return "" if short else "no version answered"
    if len(shares) == 1:
        return f"{next(iter(shares))}" if short else f"version {next(iter(shares))} answered"
    parts = [f"{version}: {share:g}%" for version, share in shares.items()]
    return ", ".join(parts) if short else f"versions answered: {', '.join(parts)}"


def _told(entry: Entry) -> str:
    reason = f" ({entry.reason})" if entry.reason else ""
    return f"{entry.event} of version {entry.version} by {entry.actor}{reason}"


def _document(entry: Entry) -> dict[str, object]:
    data = entry.model_dump(mode="json", exclude={"previous", "hash"})
    return data | {"shares": entry.shares}
