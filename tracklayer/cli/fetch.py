"""The command that brings sources into the store from a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracklayer.cli.options import Json
from tracklayer.cli.output import Output
from tracklayer.cli.projects import SPEC_FILE, checked, folder_of
from tracklayer.errors import SourceError

if TYPE_CHECKING:
    from tracklayer.cli.transport import Data
    from tracklayer.sources import Credentials, Fetched, Transfer

_SHOWN = 10  # files of a source
_HANDLE = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")


class Kind(StrEnum):
    """What a source may have only if that is said."""

    PICKLE = "pickle"
    REMOTE_CODE = "remote-code"
    UNKNOWN = "unknown"


def fetch(
    what: Annotated[
        str, typer.Argument(help="A source, such as hf://org/model@main, or a project's folder.")
    ] = ".",
    offline: Annotated[
        bool, typer.Option("--offline", help="Take what the last fetch brought; no network.")
    ] = False,
    connection: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Airflow connection on this machine with credentials."),
    ] = None,
    allow: Annotated[
        list[Kind] | None, typer.Option(help="What one source may have although it can run code.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring a source, or every source of a project, into the store."""
    from tracklayer.sources import fetch as bring
    from tracklayer.sources.addresses import shown as address
    from tracklayer.store import open_store

    output = Output(as_json=as_json)
    folder, wanted = _wanted(what, allow or [])
    store = open_store()
    found = []
    for name, handle, allowed, own in wanted:
        output.say(f"Fetching {address(handle)}")
        with _progress(output) as shown:
            fetched = bring(
                handle,
                project=folder,
                store=store,
                on_progress=shown.line,
                on_bytes=shown.bytes,
                credential=_credentials(connection or own),
                offline=offline,
                allow=frozenset(allowed),
            )
        found.append({"name": name, **_document(fetched)})
        if not as_json:
            _show(output, name, fetched)
    if as_json:
        output.result(found)
    elif not found:
        output.say(f"The project in {folder} names no source.")


def _wanted(
    what: str, allow: Sequence[str]
) -> tuple[Path, list[tuple[str | None, str, Sequence[str], str | None]]]:
    """The folder to which ``path:`` is relative, and of each source: its name in the spec, its
    handle, what it may have, its connection.

    :raises SourceError: it is neither a handle nor a folder of a project.
    :raises SpecError: something is wrong with the project.
    """
    if _HANDLE.match(what):
        return Path.cwd(), [(None, what, allow, None)]
    folder = folder_of(Path(what))
    if not (folder / SPEC_FILE).is_file():
        hint = "A source begins with its kind: hf://, kaggle://, git+https://, s3://, https://."
        raise SourceError(f"{what!r} is no source, and no folder with a {SPEC_FILE}.", hint=hint)
    sources = checked(folder).sources.items()
    return folder, [(name, s.uri, [*s.allow, *allow], s.connection) for name, s in sources]


class _Shown:
    """What is told while one source is fetched: lines, or in a terminal a bar."""

    def __init__(self, line: Callable[[str], None], moved: Callable[[Transfer], None] | None):
        self.line = line
        self.bytes = moved


@contextmanager
def _progress(output: Output) -> Iterator[_Shown]:
    """A bar that goes when it is done; where lines cannot be written over, a line now and then."""
    if not output.live:
        yield _Shown(output.say, None)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=output.progress,
        transient=True,
    ) as bars:
        task = bars.add_task("", total=None)

        def moved(now: Transfer) -> None:
            bars.update(task, completed=now.done, total=now.total or None)

        yield _Shown(lambda _line: None, moved)


def _credentials(connection: str | None) -> Credentials:
    """What a step of a run has: the named connection, else one by the kind of the service, else
    the variables of the service's own tool."""
    # By name: what it imports of Airflow, if it has to, is none of the command line's business.
    credential = import_module("tracklayer_airflow.credentials").credential
    return partial(credential, connection=connection)


def _document(fetched: Fetched) -> Data:
    files = [
        file.model_dump() | {"format": fetched.formats[file.path]}
        for file in fetched.manifest.files
    ]
    return {
        "handle": fetched.handle,
        "revision": fetched.revision,
        "manifest": fetched.manifest.digest,
        "cached": fetched.cached,
        "size": fetched.manifest.size,
        "files": files,
    }


def _show(output: Output, name: str | None, fetched: Fetched) -> None:
    from rich.filesize import decimal

    from tracklayer.cli.output import table

    manifest = fetched.manifest
    state = "in the store already" if fetched.cached else "fetched"
    told = f"{state}, {decimal(manifest.size)}"
    output.say(f"{name}: {told}" if name else told[0].upper() + told[1:])
    output.say(f"  revision  {fetched.revision}")
    output.say(f"  tree      {manifest.digest}")
    view = table("  file", ">size", "format", "digest")
    for file in manifest.files[:_SHOWN]:
        digest = file.digest.removeprefix("sha256:")[:12]
        view.add_row(f"  {file.path}", decimal(file.size), fetched.formats[file.path], digest)
    output.say(view)
    if len(manifest.files) > _SHOWN:
        output.say(f"  and {len(manifest.files) - _SHOWN} more (--json shows all)")
