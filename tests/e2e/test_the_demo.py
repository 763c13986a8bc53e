"""The demo is interrupted by Ctrl-C, and begun again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform


def runs(platform: Platform) -> dict[str, str]:
    """The runs of the example, if it is there yet, and their states."""
    answer = platform.api("GET", "/api/v2/dags/digits/dagRuns", params={"order_by": "run_after"})
    if answer.status_code == 404:
        return {}
    return {run["dag_run_id"]: run["state"] for run in answer.raise_for_status().json()["dag_runs"]}


@pytest.mark.parametrize("moment", ["is healthy", "Started the run"])
def test_the_demo_can_be_interrupted_at_any_moment(platform: Platform, moment: str) -> None:
    """It says what still runs, and leaves the project and the platform whole."""
    before = runs(platform)
    command = str(Path(sys.executable).parent / "tracklayer")
    with subprocess.Popen(
        [command, "demo"],
        env=platform.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout
        said = ""
        while moment not in said:
            line = demo.stdout.readline()
            assert line, said
            said += line
        demo.send_signal(signal.SIGINT)
        said += demo.stdout.read()
    assert demo.returncode == 130, said
    assert "Interrupted. Still running: " in said
    assert "tracklayer down` stops them." in said
    assert "Traceback" not in said
    healthy = platform.json("status")["processes"]
    assert {found["state"] for found in healthy} == {"RUNNING"}
    # A run that had begun is Airflow's, and goes on to its end.
    begun = set(runs(platform)) - set(before)
    assert len(begun) == (0 if moment == "is healthy" else 1)
    platform.until(
        lambda: all(runs(platform)[run] in ("success", "failed") for run in begun),
        "the run that the demo began has ended",
    )
    assert all(runs(platform)[run] == "success" for run in begun)
