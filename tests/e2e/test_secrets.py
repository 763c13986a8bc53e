"""A secret stays where it was put: it is looked for wherever the platform writes anything."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Platform, Watch

SPEC = """\
name: curious
template: train-and-deploy@1
packages: {requirements: [packaging]}
train: {script: train.py, metrics: {accuracy: 'accuracy (\\S+)'}}
evaluate: {metric: accuracy}
"""
# It tells whatever there is in its own environment, and in that of the guard above it.
SCRIPT = """\
import os, pathlib, shutil

print(os.environ, flush=True)
guard = pathlib.Path("/proc", str(os.getppid()))
for name in ("cmdline", "environ"):
    print((guard / name).read_bytes(), flush=True)
shutil.copy("model.onnx", os.environ["SM_MODEL_DIR"])
print("accuracy 1.0", flush=True)
"""
_TOKEN = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")  # RFC 7519, signed

# Where each is kept; nobody but the owner may read these.
KEPT = ("airflow/keys.json", "airflow/passwords.json", "airflow/airflow.cfg", "supervisor/")


@pytest.fixture(scope="module")
def secrets(platform: Platform) -> dict[str, str]:
    keys = json.loads((platform.home / "airflow/keys.json").read_text())
    password = json.loads((platform.home / "airflow/passwords.json").read_text())["admin"]
    return {"planted": platform.planted, "password": password, **keys}


def test_no_secret_is_to_be_found(
    platform: Platform,
    secrets: dict[str, str],
    times: Callable[[float], bytes],
    shown_by_processes: Watch,
) -> None:
    with shown_by_processes("cmdline") as lines:
        platform.push(
            "curious", {"tracklayer.yaml": SPEC, "train.py": SCRIPT, "model.onnx": times(2)}
        )
        outcome = platform.json("run", "curious", "--follow")
    assert any("tracklayer.runtimes.shim" in line or "train.py" in line for line in lines)
    run = outcome["run"]
    assert "TRACKLAYER_JOB" in platform.log_text("curious", run, "train")

    shown = {"command lines": "\n".join(lines), "outcome": json.dumps(outcome)}
    shown["logs"] = platform.tracklayer("logs", "curious").stdout
    shown["record"] = json.dumps(platform.record("curious", run))
    for name, task in platform.tasks("curious", run).items():
        shown[f"rendered fields of {name}"] = json.dumps(task["rendered_fields"])
        path = f"/api/v2/dags/curious/dagRuns/{run}/taskInstances/{name}/xcomEntries"
        for entry in platform.get(path)["xcom_entries"]:
            value = platform.get(f"{path}/{entry['key']}")
            shown[f"XCom {entry['key']} of {name}"] = json.dumps(value)
    assert [
        (name, where)
        for name, secret in secrets.items()
        for where in shown
        if secret in shown[where]
    ] == []


def test_no_file_of_the_home_has_one_that_should_not(
    platform: Platform, secrets: dict[str, str]
) -> None:
    found, kept = [], set()
    for path in platform.home.rglob("*"):
        where = path.relative_to(platform.home).as_posix()
        if path.is_symlink() or not path.is_file() or where.startswith("environments/"):
            continue
        content = path.read_bytes()
        if _TOKEN.search(content):
            found.append(("a token", where, ""))
        for name, secret in secrets.items():
            if secret.encode() in content:
                mode = stat.S_IMODE(path.stat().st_mode)
                if where.startswith(KEPT) and not mode & 0o077:
                    kept.add(name)
                else:
                    found.append((name, where, oct(mode)))
    assert found == []
    assert kept == secrets.keys()  # it was looked for in the right way
