"""The command that shows where what a project serves came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracklayer.cli.options import Json, TokenFile, Url, connect
from tracklayer.cli.output import Output
from tracklayer.errors import ProjectError

if TYPE_CHECKING:
    from rich.tree import Tree

    from tracklayer.cli.client import Platform
    from tracklayer.cli.transport import Data

_SHOWN = 8  # files of a list


def lineage(
    name: Annotated[str, typer.Argument(help="Name of the project.")],
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Of its model; default: the one that is served, or was last."),
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show the way from a project's endpoint back to its sources, each with its digest."""
    with connect(url, token_file) as platform:
        found = _lineage(platform, name, version)
    Output(as_json=as_json).result(found, _tree(found))


def _lineage(platform: Platform, name: str, version: int | None) -> Data:
    from tracklayer.tracking.lineage import lineage as trace

    endpoint = platform.project(name)["endpoint"]
    live = int(endpoint["version"]) if endpoint["version"] else None

    def record(run: str) -> Data | None:
        try:
            return platform.record(name, run)
        except ProjectError:  # its folder is gone
            return None

    mlflow = platform.describe()["mlflow"]
    found = trace(mlflow, name, live=live, version=version, record=record)
    return {"endpoint": endpoint} | found


def _tree(found: Data) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    def line(*parts: str | None, style: str = "") -> Text:
        words = [part for part in parts if part]
        return Text.assemble((words[0], style or "bold"), *(f" {word}" for word in words[1:]))

    version, model, run = found["version"], found["model"], found["run"]
    commit = (found["project"]["commit"] or "unknown")[:12]
    names = "live" * version["live"], "champion" * version["champion"]
    state = ", ".join(filter(None, names)) or "not live"
    tree = Tree(line("endpoint", found["endpoint"]["url"]))
    at_version = tree.add(line("version", f"{version['number']}, {state}"))
    at_model = at_version.add(line("model", _short(model["digest"]), model["format"]))
    _add_files(at_model, model["files"])
    at_run = at_model.add(line("run", run["id"]))
    at_run.add(line("MLflow run", run["mlflow"]))
    at_run.add(line("project", found["project"]["name"], f"at commit {commit}"))
    if run["hyperparameters"]:
        at_run.add(line("hyperparameters", _pairs(run["hyperparameters"])))
    if run["metrics"]:
        at_run.add(line("metrics", _pairs(run["metrics"])))
    if digest := found["packages"]["digest"]:
        count = len(found["packages"]["lock"])
        at_run.add(line("packages", _short(digest), f"({count} locked)"))
    if found["target"]:
        at_run.add(line("target", found["target"]))
    for source in found["sources"]:
        at_source = at_run.add(line("source", source["name"]))
        at_source.add(line(source["handle"], style="default"))
        revision = source["revision"]
        at_source.add(line("revision", _short(revision) if ":" in revision else revision))
        if source["allowed"]:
            allowed = ", ".join(source["allowed"])
            at_source.add(line("allowed by the project:", allowed, style="bold yellow"))
        _add_files(at_source, source["files"])
    return tree


def _add_files(parent: Tree, files: list[dict[str, Any]]) -> None:
    from rich.filesize import decimal

    for file in files[:_SHOWN]:
        parts = file["path"], decimal(file["size"]), file.get("format"), _short(file["digest"])
        parent.add("  ".join(filter(None, parts)))
    if len(files) > _SHOWN:
        parent.add(f"and {len(files) - _SHOWN} more (--json shows all)")


def _short(digest: str | None) -> str:
    """The first digits of a digest: enough for a person, and for ``tracklayer store show``."""
    return (digest or "").removeprefix("sha256:")[:12]


def _pairs(values: dict[str, Any]) -> str:
    def text(value: object) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name}={text(value)}" for name, value in values.items())
