"""Commands on the callers' keys: create, ls, revoke."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracklayer.cli.options import Json, duration
from tracklayer.cli.output import Output, moment, table
from tracklayer.errors import PlatformError

if TYPE_CHECKING:
    from tracklayer.access import Key, Keys

app = typer.Typer(
    name="keys",
    help="Who may ask the models: a key for each caller.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the caller.")]


@app.command()
def create(
    name: Name,
    project: Annotated[
        list[str] | None, typer.Option(help="A project that it opens, repeatable; default: all.")
    ] = None,
    expires: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="How long it is valid, such as 30d."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second, in the long run.")
    ] = None,
    burst: Annotated[
        int | None, typer.Option(min=1, help="Requests at once; default: those of a second.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown now and never again; what is kept cannot be turned back into it."""
    if burst is not None and rate is None:
        raise typer.BadParameter("--burst goes with --rate.")
    if expires == 0:
        raise typer.BadParameter("--expires is longer than 0.")
    key, secret = _keys().create(
        name,
        projects=project or None,
        lifetime=None if expires is None else timedelta(seconds=expires),
        rate=rate,
        burst=burst,
    )
    Output(as_json=as_json).result({**_document(key), "key": secret}, secret)
    if not as_json:
        sys.stderr.write(
            "Keep it: it is not shown again. "
            "Send it as `Authorization: Bearer <key>` or `X-API-Key: <key>`.\n"
        )
        for unknown in _not_served(key):
            sys.stderr.write(f"No project {unknown!r} is served yet; the key will open it.\n")


@app.command()
def ls(as_json: Json = False) -> None:
    """List the callers that have a key, and what it opens."""
    keys = _keys().all()
    view = table("caller", "projects", "created", "expires", ">rate", ">burst")
    for key in keys:
        shown = _document(key)
        view.add_row(
            key.name,
            "all" if key.projects == "*" else ", ".join(key.projects),
            moment(key.created),
            moment(key.expires) + (" (expired)" if shown["expired"] else ""),
            f"{key.rate:g}/s" if key.rate else "",
            str(key.burst or ""),
        )
    documents = [_document(key) for key in keys]
    Output(as_json=as_json).result(
        {"keys": documents}, view if keys else "No caller has a key yet."
    )


@app.command()
def revoke(name: Name, as_json: Json = False) -> None:
    """Take a caller's key away. The gateway refuses it from the next request on."""
    _keys().revoke(name)
    Output(as_json=as_json).result({"revoked": name}, f"The key of {name} opens nothing any more.")


def _keys() -> Keys:
    from tracklayer.access import Keys
    from tracklayer.settings import settings

    return Keys(settings().gateway_home / "keys.json")


def _not_served(key: Key) -> list[str]:
    """The projects of a key that have no route: one may be a slip."""
    from tracklayer.gateway.routes import load
    from tracklayer.settings import settings

    if key.projects == "*":
        return []
    try:
        served = load(settings().routes)
    except PlatformError:  # damaged routes are the gateway's to tell of
        return []
    return [project for project in key.projects if project not in served]


def _document(key: Key) -> dict[str, Any]:
    """All of it but the digest."""
    return {
        **key.model_dump(mode="json", exclude={"digest"}),
        "expired": key.expired(time.time()),
    }
