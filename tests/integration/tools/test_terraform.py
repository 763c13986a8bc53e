"""Terraform as a program and from its library: the same promises."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never

import psutil
import pytest

from tracklayer.errors import TerraformError
from tracklayer.targets import Outputs, known, terraform_root
from tracklayer.tools.intent import Intent
from tracklayer.tools.terraform import Terraform, program

SLOW = """
variable "seconds" { type = number }
resource "terraform_data" "first" { input = "kept" }
resource "terraform_data" "slow" {
  input = terraform_data.first.output
  provisioner "local-exec" {
    working_dir = "../.."
    command     = "echo begun; echo $$ > begun; sleep ${var.seconds}; echo x >> made"
  }
}
resource "terraform_data" "last" { input = terraform_data.slow.output }
output "first" { value = terraform_data.first.output }
output "token" {
  value     = "hunter2"
  sensitive = true
}
"""

SECRET = """
variable "key" {
  type      = string
  sensitive = true
}
resource "terraform_data" "holder" { input = var.key }
output "key" {
  value     = terraform_data.holder.output
  sensitive = true
}
output "token" {
  value     = "hunter2"
  sensitive = true
}
"""


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CLI_CONFIG_FILE", raising=False)


@pytest.fixture(params=["program", "library"])
def way(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    give_up: Callable[[str], Never],
) -> str:
    found = shutil.which("terraform")
    if request.param == "program":
        if not found:
            give_up("there is no terraform program here")
    else:
        kept = [f for f in os.environ["PATH"].split(":") if not Path(f, "terraform").exists()]
        monkeypatch.setenv("PATH", ":".join(kept))
    assert program()[0] == (found if request.param == "program" else sys.executable)
    return str(request.param)


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    root = tmp_path / "slow"
    root.mkdir()
    (root / "main.tf").write_text(SLOW)
    return root


def addresses(state: Path) -> list[str]:
    read = json.loads((state / "terraform.tfstate").read_text())
    return sorted(f"{r['type']}.{r['name']}" for r in read["resources"] if r["instances"])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def modes(folder: Path) -> set[int]:
    return {p.stat().st_mode & 0o077 for p in folder.iterdir() if p.name.startswith("terraform.")}


def test_the_local_target_from_nothing_to_nothing(way: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    said: list[str] = []
    before = {p: p.read_bytes() for p in terraform_root("local").rglob("*") if p.is_file()}

    def terraform() -> Terraform:
        return Terraform(
            terraform_root("local"),
            state,
            on_line=said.append,
            variables={"name": "digits", "labels": {"project": "digits"}, "gpus": 1},
            labels={"project": "digits", "run": "r1"},
        )

    host = Outputs.check(terraform().apply()).hosts[0]
    assert (host.address, host.connection, host.accelerators) == ("127.0.0.1", "local", ["nvidia"])
    assert any("Creation complete" in line for line in said)
    assert state.stat().st_mode & 0o777 == 0o700
    assert modes(state) == {0}
    assert not (state / "plan").exists()
    note = Intent.read(state)
    assert note is not None
    assert (note.goal, note.status, note.pid) == ("apply", "done", None)
    assert note.labels == {"project": "digits", "run": "r1"}

    first = (state / "terraform.tfstate").read_bytes()
    said.clear()
    assert terraform().apply() == terraform().outputs()
    assert (state / "terraform.tfstate").read_bytes() == first
    assert not any("Creat" in line for line in said)

    Terraform(terraform_root("local"), state).destroy()  # knows the variables of the last call
    assert addresses(state) == []
    assert terraform().outputs() == {}
    terraform().destroy()
    after = {p: p.read_bytes() for p in terraform_root("local").rglob("*") if p.is_file()}
    assert after == before


def test_nothing_to_destroy_leaves_nothing(tmp_path: Path) -> None:
    Terraform(terraform_root("local"), tmp_path / "state").destroy()
    assert not (tmp_path / "state").exists()


def test_no_secret_is_said(slow: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (slow / "main.tf").write_text(SECRET)
    terraform = Terraform(
        slow, tmp_path / "state", on_line=said.append, variables={"key": "hunter3"}
    )
    outputs = terraform.apply()
    assert outputs == {"token": "hunter2", "key": "hunter3"}
    assert "hunter" not in "\n".join(said)
    assert "hunter3" in (tmp_path / "state/terraform.tfstate").read_text()
    for name in ("intent.json", "output.log"):
        assert "hunter" not in (tmp_path / "state" / name).read_text()


def test_an_interrupt_keeps_the_state_and_the_next_try_goes_on(
    way: str, slow: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    said: list[str] = []
    terraform = Terraform(slow, state, on_line=said.append, variables={"seconds": 30})
    failed: list[TerraformError] = []

    def apply() -> None:
        try:
            terraform.apply()
        except TerraformError as error:
            failed.append(error)

    thread = threading.Thread(target=apply)
    thread.start()
    wait_for(tmp_path / "begun")
    begin = time.monotonic()
    terraform.interrupt()
    terraform.interrupt()
    thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - begin < 5
    assert "interrupted" in str(failed[0])
    assert not any("Two interrupts" in line for line in said)
    assert not (state / ".terraform.tfstate.lock.info").exists()
    assert "terraform_data.first" in addresses(state)
    assert "terraform_data.last" not in addresses(state)
    note = Intent.read(state)
    assert note is not None
    assert note.status == "failed"

    outputs = Terraform(slow, state, variables={"seconds": 0}).apply()
    assert outputs["first"] == "kept"
    assert (tmp_path / "made").read_text() == "x\n"


CALLER = """
import sys
from pathlib import Path
from tracklayer.tools.terraform import Terraform
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
Terraform(folder / "slow", folder / "state", variables={"seconds": seconds},
          labels={"run": "r1"}).apply()
"""


def caller(tmp_path: Path, seconds: float) -> subprocess.Popen[bytes]:
    """A process that applies, in a process group of its own, as a task runs."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CALLER), str(tmp_path), str(seconds)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def test_terraform_outlives_a_killed_caller_and_is_adopted(
    way: str, slow: Path, tmp_path: Path
) -> None:
    task = caller(tmp_path, 2)
    wait_for(tmp_path / "begun")
    os.killpg(task.pid, signal.SIGKILL)
    task.wait()
    note = Intent.read(tmp_path / "state")
    assert note is not None
    assert note.status == "started"
    assert note.labels == {"run": "r1"}
    assert note.pid is not None
    assert psutil.pid_exists(note.pid)
    said: list[str] = []
    # 2 again: another value would be another resource.
    Terraform(slow, tmp_path / "state", on_line=said.append, variables={"seconds": 2}).apply()
    assert any("still at work" in line for line in said)
    assert (tmp_path / "made").read_text() == "x\n"  # made once
    assert len(addresses(tmp_path / "state")) == 3


def test_a_killed_terraform_and_its_lock_block_nothing(slow: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    task = caller(tmp_path, 30)
    wait_for(tmp_path / "begun")
    os.killpg(task.pid, signal.SIGKILL)
    task.wait()
    note = Intent.read(state)
    assert note is not None
    assert note.pid is not None
    os.killpg(note.pid, signal.SIGKILL)
    assert (state / ".terraform.tfstate.lock.info").exists()
    assert Terraform(slow, state, variables={"seconds": 0}).apply()["first"] == "kept"
    assert (tmp_path / "made").read_text() == "x\n"
    assert not (state / ".terraform.tfstate.lock.info").exists()


def test_waiting_for_an_earlier_one_can_be_interrupted(slow: Path, tmp_path: Path) -> None:
    task = caller(tmp_path, 2)
    wait_for(tmp_path / "begun")
    os.killpg(task.pid, signal.SIGKILL)
    task.wait()
    second = Terraform(slow, tmp_path / "state", variables={"seconds": 2})
    threading.Timer(0.3, second.interrupt).start()
    with pytest.raises(TerraformError, match="interrupted"):
        second.apply()
    Terraform(slow, tmp_path / "state", variables={"seconds": 2}).apply()
    assert (tmp_path / "made").read_text() == "x\n"  # it was left in peace


def test_two_callers_take_turns(slow: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    said: list[str] = []
    first = Terraform(slow, state, variables={"seconds": 1})
    thread = threading.Thread(target=first.apply)
    thread.start()
    wait_for(tmp_path / "begun")
    Terraform(slow, state, on_line=said.append, variables={"seconds": 1}).apply()
    thread.join()
    assert any("another task is at work" in line for line in said)
    assert (tmp_path / "made").read_text() == "x\n"


def test_a_time_limit(way: str, slow: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(TerraformError, match="took longer than 2 s"):
        Terraform(slow, tmp_path / "state", variables={"seconds": 30}, timeout=2).apply()
    assert time.monotonic() - begin < 8
    assert "terraform_data.first" in addresses(tmp_path / "state")


def test_grandchildren_end_with_it(slow: Path, tmp_path: Path) -> None:
    main = slow / "main.tf"
    left = "sleep 300 > /dev/null 2>&1 & echo $! > left"
    main.write_text(main.read_text().replace("echo begun;", f"{left};"))
    Terraform(slow, tmp_path / "state", variables={"seconds": 0}).apply()
    assert not psutil.pid_exists(int((tmp_path / "left").read_text()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('resource "terraform_data" "x" {\n', "Unclosed configuration block"),
        ('resource "terraform_data" "x" { nope = 1 }\n', "Unsupported argument"),
        ('resource "terraform_data" "x" { input = file("nope") }\n', "main.tf line 1"),
        (
            'resource "terraform_data" "x" {\n provisioner "local-exec" {\n'
            '  command = "echo broken >&2; exit 7"\n }\n}\n',
            "exit status 7",
        ),
    ],
)
def test_its_own_diagnosis(way: str, tmp_path: Path, text: str, says: str) -> None:
    root = tmp_path / "wrong"
    root.mkdir()
    (root / "main.tf").write_text(text)
    with pytest.raises(TerraformError, match=r"terraform (init|plan|apply) of wrong failed") as e:
        Terraform(root, tmp_path / "state").apply()
    assert says in e.value.message
    assert "Traceback" not in e.value.message


def test_wrong_variables_are_refused_by_the_root(tmp_path: Path) -> None:
    with pytest.raises(TerraformError, match="A name begins with a letter"):
        Terraform(
            terraform_root("local"), tmp_path / "state", variables={"name": "Not A Name"}
        ).apply()


def test_a_state_that_could_not_be_saved_is_taken_back(slow: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    Terraform(slow, state, variables={"seconds": 0}).apply()
    newer = json.loads((state / "terraform.tfstate").read_text())
    newer["serial"] += 1
    newer["outputs"]["first"]["value"] = "from the rescued state"
    older = {**newer, "serial": 1, "resources": [], "outputs": {}}
    (state / "terraform.tfstate").write_text(json.dumps(older))
    (state / "root/errored.tfstate").write_text(json.dumps(newer))
    said: list[str] = []
    Terraform(slow, state, on_line=said.append, variables={"seconds": 0}).apply()
    assert any("taking back the state" in line for line in said)
    assert (tmp_path / "made").read_text() == "x\n"  # nothing was made again
    assert list(state.rglob("errored.tfstate")) == []


def test_a_rescued_state_of_something_else_is_kept(slow: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    Terraform(slow, state, variables={"seconds": 0}).apply()
    other = json.loads((state / "terraform.tfstate").read_text())
    other["lineage"] = "00000000-0000-0000-0000-000000000000"
    (state / "root/errored.tfstate").write_text(json.dumps(other))
    with pytest.raises(TerraformError, match="lineage"):
        Terraform(slow, state, variables={"seconds": 0}).apply()
    assert (state / "errored.tfstate").exists()


def test_a_damaged_state(slow: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/terraform.tfstate").write_text("{")
    with pytest.raises(TerraformError, match="cannot be read"):
        Terraform(slow, tmp_path / "state").outputs()


def test_a_state_folder_that_cannot_be_made(slow: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TerraformError, match="must be writable"):
        Terraform(slow, tmp_path / "file/state").apply()


def test_every_root_has_a_valid_form(give_up: Callable[[str], Never]) -> None:
    if not shutil.which("terraform"):
        give_up("there is no terraform program here")
    for name in known():
        subprocess.run(["terraform", "fmt", "-check", str(terraform_root(name))], check=True)
