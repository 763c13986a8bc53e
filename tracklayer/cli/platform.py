"""Commands on the platform of this machine: up, down, doctor."""

from __future__ import annotations

from dataclasses import asdict

import typer

from tracklayer.cli.options import Json
from tracklayer.cli.output import Output, table
from tracklayer.errors import PlatformError


def up(as_json: Json = False) -> None:
    """Start the platform on this machine; what runs already goes on."""
    from tracklayer import platform

    output = Output(as_json=as_json)
    found = platform.up(output.say)
    user = platform.credentials().user
    output.result(asdict(found) | {"user": user}, *where_to_look())


def down(as_json: Json = False) -> None:
    """Stop the platform on this machine, its model servers too."""
    from tracklayer import platform

    output = Output(as_json=as_json)
    platform.down(output.say)
    output.result({"stopped": True}, "The platform is stopped; `tracklayer up` starts it again.")


def doctor(as_json: Json = False) -> None:
    """Say what this machine lacks for the platform, and how to get it."""
    from tracklayer import platform

    checks = platform.doctor()
    lacking = [check.name for check in checks if check.required and not check.ok]
    view = table("", "what", "found")
    for check in checks:
        mark = "✓" if check.ok else "✗" if check.required else "-"
        view.add_row(mark, check.name, check.found)
        if check.hint and not check.ok:
            view.add_row("", "", check.hint)
    Output(as_json=as_json).result([asdict(check) for check in checks], view)
    if lacking and as_json:
        raise typer.Exit(PlatformError.exit_code)
    if lacking:
        raise PlatformError(f"This machine lacks: {', '.join(lacking)}.")


def where_to_look() -> list[str]:
    """The addresses of the platform here, and where the password is; never the password."""
    from tracklayer import platform
    from tracklayer.settings import settings

    found = platform.addresses()
    passwords = settings().airflow_home / "passwords.json"
    grpc = [f"gRPC      {found.grpc}"] if found.grpc else []
    return [
        f"Airflow   {found.airflow}  (user {platform.credentials().user}, password in {passwords})",
        f"MLflow    {found.mlflow}",
        f"Gateway   {found.gateway}",
        *grpc,
    ]
