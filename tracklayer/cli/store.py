"""Commands on the store: what is in it, whether it is whole, what may go, its keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tracklayer.cli.options import Json, duration
from tracklayer.cli.output import Output
from tracklayer.errors import StoreError

app = typer.Typer(
    name="store",
    help="What was fetched and made: list it, show it, verify it, give it out, clear it out.",
    no_args_is_help=True,
)

_MEND = "What was fetched can be fetched again; a key that is missing, only its backup brings back."

What = Annotated[
    str,
    typer.Argument(help="A name or its beginning, a source's handle, or the start of a digest."),
]


def _size(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is no size, such as 50GiB.") from None


@app.command()
def ls(as_json: Json = False) -> None:
    """List what is in the store, and the room that it takes."""
    from tracklayer.cli.contents import listing, listing_views
    from tracklayer.settings import settings
    from tracklayer.store import open_store

    store = open_store()
    kinds = listing(store)
    usage = store.usage()._asdict() | {"quota": settings().store_quota}
    Output(as_json=as_json).result({**kinds, "usage": usage}, *listing_views(kinds, usage))


@app.command()
def show(what: What, as_json: Json = False) -> None:
    """Show the files of something, their digests and where they came from."""
    from tracklayer.cli.contents import find
    from tracklayer.store import open_store

    found = find(open_store(), what)
    Output(as_json=as_json).result(found.document(), *found.views())


@app.command()
def verify(as_json: Json = False) -> None:
    """Read everything and say what is missing or damaged. Exit code 5 if anything is."""
    from tracklayer.store import open_store

    output = Output(as_json=as_json)
    with _waiting(output, "Reading everything in the store"):
        problems = open_store().verify()
    output.result({"problems": problems}, *([] if problems else ["Everything is as it was."]))
    _tell(problems, as_json)


@app.command()
def export(
    what: What,
    folder: Annotated[Path, typer.Argument(help="New or empty folder for the plain files.")],
    as_json: Json = False,
) -> None:
    """Write something's files, decrypted, into a folder."""
    from tracklayer.cli.contents import find, size
    from tracklayer.store import open_store

    output = Output(as_json=as_json)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "Name a new folder, or an empty one."
        raise StoreError(f"{folder} is there, and not empty.", hint=hint)
    store = open_store()
    found = find(store, what)
    with store.session(), _waiting(output, f"Writing {found.name}"):
        # All or nothing is what a tree of the store can do; for single objects one is made.
        tree = found.tree or store.put_manifest(found.files).digest
        store.materialise(tree, folder.absolute())
    output.result(
        found.document() | {"folder": str(folder.absolute())},
        f"{len(found.files)} files, {size(found.size)}, are in {folder}.",
    )


@app.command()
def gc(
    quota: Annotated[
        int | None,
        typer.Option(
            parser=_size,
            metavar="SIZE",
            help="Remove the sources that were used longest ago until all fits, such as 50GiB; "
            "default: the setting store_quota.",
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="TIME", help="Remove sources not used since, such as 30d."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove what nothing needs any more. Models, artifacts and live runs keep what is theirs."""
    from tracklayer.cli.contents import handles, size
    from tracklayer.settings import settings
    from tracklayer.store import open_store

    output = Output(as_json=as_json)
    limit = settings().store_quota if quota is None else quota
    with _waiting(output, "Looking for what nothing needs"):
        store = open_store()
        names = handles(store)
        done = store.collect(quota=limit, older_than=older_than, dry_run=dry_run)
    would = "Would free" if dry_run else "Freed"
    lines = [f"{would} {size(done.freed)}; {size(done.kept)} stay."]
    gone = {names.get(name, name) for name in done.sources} - {""}
    lines += [f"  {name}" for name in sorted(gone)]
    if done.over:
        over = size(done.over)
        lines.append(f"What has to be kept is {over} more than the quota.")
    output.result(asdict(done) | {"dry_run": dry_run}, *lines)


@app.command("rotate-key")
def rotate_key(as_json: Json = False) -> None:
    """Make a new key and wrap the key of every file with it; no content is encrypted again."""
    from tracklayer.store import open_store

    output = Output(as_json=as_json)
    with _waiting(output, "Rotating the key"):
        done = open_store().rotate(output.say)
    made = "a new key" if done.made else "the current key"
    lines = [f"{done.rewrapped} files are under {made}, {done.key}."]
    if done.sealed:
        lines.append(f"{done.sealed} files that were in plain are encrypted.")
    if done.unused:
        lines.append(f"No file needs these keys any more: {', '.join(done.unused)}.")
    output.result(asdict(done), *lines)
    _tell(list(done.problems), as_json)


def _tell(problems: list[str], as_json: bool) -> None:
    """End with the store's exit code if something is wrong; the result has said what, as JSON.

    :raises StoreError: with all that is wrong.
    """
    if problems and as_json:
        raise typer.Exit(StoreError.exit_code)
    if problems:
        raise StoreError("\n".join(problems), hint=_MEND)


@contextmanager
def _waiting(output: Output, what: str) -> Iterator[None]:
    """A sign of life in a terminal; it goes when it is done."""
    if not output.live:
        yield
        return
    with output.progress.status(what):
        yield
