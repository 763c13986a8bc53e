"""The command on what callers used: usage."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tracklayer.cli.options import Json, duration
from tracklayer.cli.output import Output, seconds, table
from tracklayer.errors import PlatformError

if TYPE_CHECKING:
    from rich.table import Table

    from tracklayer.gateway.usage import Used


def usage(
    project: Annotated[str | None, typer.Option(help="Of this project; default: of all.")] = None,
    caller: Annotated[str | None, typer.Option(help="Of this caller; default: of all.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="A time such as 30d, or a date such as 2026-01-31; default: ever."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show who asked for how much, by project and version; with --json by the hour too."""
    from tracklayer.gateway.usage import used
    from tracklayer.settings import settings

    begin = _moment(since) if since else None
    file = settings().gateway_home / "usage.db"
    rows = used(file, since=begin, project=project, caller=caller)
    Output(as_json=as_json).result(
        {"usage": [asdict(row) for row in rows]},
        _table(rows) if rows else "Nobody has asked for anything.",
    )


def _moment(text: str) -> datetime:
    """A date in this machine's time zone, or so long ago."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now(UTC) - timedelta(seconds=duration(text))
    except typer.BadParameter:
        raise PlatformError(
            f"{text!r} is no time.",
            hint="Write it as 30d or 12h, or as a date: 2026-01-31 or 2026-01-31T12:00.",
        ) from None


def _table(rows: list[Used]) -> Table:
    from rich.filesize import decimal

    sums: defaultdict[tuple[str, str, int], list[float]] = defaultdict(lambda: [0] * 5)
    for row in rows:
        numbers = (row.requests, row.errors, row.bytes_in, row.bytes_out, row.seconds)
        total = sums[row.caller, row.project, row.version]
        total[:] = [a + b for a, b in zip(total, numbers, strict=True)]
    view = table("caller", "project", ">version", ">requests", ">errors", ">in", ">out", ">time")
    for (caller, project, version), total in sorted(sums.items()):
        requests, errors, *sizes, time = total
        view.add_row(
            caller,
            project,
            str(version),
            str(requests),
            str(errors),
            *(decimal(int(size)) for size in sizes),
            seconds(time),
        )
    return view
