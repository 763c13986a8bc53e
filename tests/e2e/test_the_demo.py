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


@pytest.mark.parametrize("moment", ["is healthy", "Started the run", "configure"])
def test_the_demo_can_be_interrupted_at_any_moment(platform: Platform, moment: str) -> None:
    """It says what still runs, and leaves the project and the platform whole."""
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
    assert "`tracklayer down` stops them." in said
    assert "Traceback" not in said
    healthy = platform.json("status")["processes"]
    assert {found["state"] for found in healthy} == {"RUNNING"}
    # A run that had begun is Airflow's, and ends by itself.
    platform.until(
        lambda: all(run["state"] in ("success", "failed") for run in platform.runs("digits")),
        "the run that the demo began has ended",
    )
    assert all(run["state"] == "success" for run in platform.runs("digits"))
