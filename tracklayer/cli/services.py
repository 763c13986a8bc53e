"""Commands on what serves: status, predict."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracklayer.cli.options import Json, TokenFile, Url, connect
from tracklayer.cli.output import Output, moment, seconds, table
from tracklayer.errors import PlatformError, Problem, ServiceError, SpecError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tracklayer.cli.client import Platform
    from tracklayer.cli.transport import Data

_TIMEOUT = 60.0  # seconds for an answer
_KEY = "TRACKLAYER_API_KEY"
_SHOWN = 12  # values of a tensor


def status(
    name: Annotated[str | None, typer.Argument(help="Name of a project; default: all.")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show the platform's processes (of the one here), projects, endpoints and last runs."""
    output = Output(as_json=as_json)
    if name is not None:
        with connect(url, token_file) as platform:
            data = platform.project(name) | {"run": _last_runs(platform, name).get(name)}
        output.result(data, *_details(data))
        return
    processes = None if url else _processes()
    if processes == []:
        hint = "Start it with `tracklayer up`."
        raise PlatformError("The platform does not run on this machine.", hint=hint)
    with connect(url, token_file) as platform:
        last = _last_runs(platform)
        projects = [found | {"run": last.get(found["name"])} for found in platform.projects()]
    output.result(
        {"processes": processes, "projects": projects},
        *([_process_table(processes), ""] if processes else []),
        _project_table(projects) if projects else "There are no projects yet.",
    )


def predict(
    name: Annotated[str, typer.Argument(help="Name of the project.")],
    file: Annotated[
        str, typer.Argument(help="File with the request (JSON, or .csv); - for stdin.")
    ] = "-",
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Ask a project's model: a request of the Open Inference Protocol, or {"instances": ...}."""
    body = sys.stdin.buffer.read() if file == "-" else _read(Path(file))
    with connect(url, token_file) as platform:
        endpoint = platform.project(name)["endpoint"]["url"]
    answer = ask(endpoint, name, body, file)
    Output(as_json=as_json).result(answer, *answer_lines(answer))


def ask(endpoint: str, name: str, body: bytes, file: str) -> Data:
    """Send a request to an endpoint, by the protocol that it is written for.

    :param file: where the body is from; ``.csv`` is sent as it is.
    :raises SpecError: the body is no JSON.
    :raises ServiceError: no answer, or one that says what is wrong.
    """
    import httpx

    from tracklayer.cli.transport import is_local

    if file.endswith(".csv"):
        path, media = "invocations", "text/csv"
    else:
        v2 = _is_open_inference(_parsed(body, file))
        path = f"v2/models/{name}/infer" if v2 else "invocations"
        media = "application/json"
    address = f"{endpoint}/{path}"
    key = os.environ.get(_KEY)
    try:
        response = httpx.post(
            address,
            content=body,
            headers={"Content-Type": media} | ({"X-API-Key": key} if key else {}),
            timeout=_TIMEOUT,
            trust_env=not is_local(address),
            verify=address.startswith("https:"),
        )
        answer = response.json()
    except httpx.HTTPError as error:
        hint = "`tracklayer status` shows whether the gateway runs."
        message = f"The endpoint {endpoint} does not answer: {error}."
        raise ServiceError(message, hint=hint) from None
    except ValueError:
        raise ServiceError(f"{address} did not answer with JSON.") from None
    if not response.is_success or not isinstance(answer, dict):
        said = answer.get("error") if isinstance(answer, dict) else answer
        deploys = f"A run deploys it: `tracklayer run {name} --follow`."
        raise ServiceError(
            f"{address} answered {response.status_code}: {said}",
            hint={
                401: f"Put a key into {_KEY}: `tracklayer keys create NAME` gives one.",
                404: deploys,
            }.get(response.status_code),
        )
    return answer


def answer_lines(answer: Data) -> list[str]:
    """An answer for a person: each output on a line, long ones shortened."""
    if "outputs" not in answer:
        return [json.dumps(answer, indent=2)]
    return [
        f"{output['name']}  {output['datatype']} {output['shape']}  {_values(output['data'])}"
        for output in answer["outputs"]
    ]


def _values(data: list[Any]) -> str:
    flat = _flat(data)
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in flat[:_SHOWN]]
    rest = f" ... ({len(flat)} values)" if len(flat) > _SHOWN else ""
    return " ".join(shown) + rest


def _flat(data: list[Any]) -> list[Any]:
    """The protocol allows nested arrays beside flat ones."""
    while data and isinstance(data[0], list):
        data = [value for row in data for value in row]
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError([Problem(str(path), 1, 1, error.strerror or str(error))]) from None


def _parsed(body: bytes, file: str) -> object:
    name = "stdin" if file == "-" else file
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        problem = Problem(name, error.lineno, error.colno, f"this is no JSON: {error.msg}")
    except (UnicodeDecodeError, RecursionError):
        problem = Problem(name, 1, 1, "this is no JSON")
    raise SpecError([problem]) from None


def _is_open_inference(request: object) -> bool:
    inputs = request.get("inputs") if isinstance(request, dict) else None
    return isinstance(inputs, list) and any("datatype" in i for i in inputs if isinstance(i, dict))


def _last_runs(platform: Platform, name: str | None = None) -> dict[str, Data]:
    """Project to its newest run."""
    found: dict[str, Data] = {}
    for data in platform.runs(name, limit=100 if name is None else 1):
        summary = {"run": data["dag_run_id"], "state": data["state"], "at": data["run_after"]}
        found.setdefault(data["dag_id"], summary)
    return found


def _processes() -> list[Data]:
    from tracklayer import platform

    return [asdict(found) for found in platform.status()]


def _process_table(processes: list[Data]) -> RenderableType:
    view = table("process", "state", ">pid", ">up for", ">memory")
    for row in processes:
        pid, memory = row["pid"] or "", f"{row['memory'] / 2**20:.0f} MiB"
        up = seconds(row["uptime"]) if row["pid"] else ""
        view.add_row(row["name"], row["state"], str(pid), up, memory)
    return view


def _project_table(projects: list[Data]) -> RenderableType:
    view = table("project", "spec", "last run", "live", "endpoint")
    for row in projects:
        live, run = _live(row["endpoint"]), row["run"]
        view.add_row(
            row["name"],
            "valid" if row["valid"] else f"{len(row['problems'])} wrong",
            run["state"] if run else "",
            live,
            row["endpoint"]["url"] if live else "",
        )
    return view


def _live(endpoint: Data) -> str:
    """The version that answers; all of them with their shares while one takes over."""
    weights = {v: weight for v, weight in (endpoint.get("weights") or {}).items() if weight}
    if len(weights) < 2:
        return f"version {endpoint['version']}" if endpoint["version"] else ""
    total = sum(weights.values())
    parts = (f"{version}: {100 * weight / total:g}%" for version, weight in weights.items())
    return f"versions {', '.join(parts)}"


def _details(data: Data) -> list[RenderableType]:
    run, endpoint, latest = data["run"], data["endpoint"], data["latest"]
    rows = {
        "project": data["name"],
        "about": data["description"],
        "template": data["template"] or "",
        "saved": f"{latest['id'][:12]} by {latest['author'].partition(' <')[0]}, "
        f"{moment(datetime.fromisoformat(latest['time']))}",
        "last run": f"{run['run']}: {run['state']}" if run else "none",
        "live": _live(endpoint) or "nothing",
        "endpoint": endpoint["url"],
    }
    view = table("", "")
    view.show_header = False
    for key, value in rows.items():
        if value:
            view.add_row(key, value)
    problems = [str(Problem(**problem)) for problem in data["problems"]]
    return [view, *problems, *([endpoint["error"]] if endpoint["error"] else [])]
