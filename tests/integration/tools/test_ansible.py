"""Real playbooks on the local connection."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never

import psutil
import pytest

from tracklayer.errors import AnsibleError
from tracklayer.settings import resource
from tracklayer.targets import Host
from tracklayer.tools.ansible import PlaybookResult, run_playbook

CONFIGURE = resource("infra/ansible/playbooks/configure.yaml")
LOCAL = Host(
    address="127.0.0.1",
    port=22,
    user=None,
    python=sys.executable,
    connection="local",
    accelerators=[],
    hourly_cost=0,
)
SLEEP = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      ansible.builtin.raw: echo $PPID > {folder}/begun
    - name: Sleep
      ansible.builtin.command: sh -c 'echo $$ > {folder}/sleeping; sleep {seconds}'
"""


def playbook(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "playbooks" / "play.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
    return int(path.read_text())


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_configure_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without the environment's programs on the path, and with a handler of our own."""
    monkeypatch.setenv("PATH", os.defpath)
    handler = signal.getsignal(signal.SIGTERM)
    folders = [tmp_path / "home" / "a", tmp_path / "home" / "b c"]
    said: list[str] = []

    def configure() -> PlaybookResult:
        return run_playbook(
            CONFIGURE,
            hosts=[LOCAL],
            variables={"host_folders": [str(f) for f in folders], "host_memory": 1 << 20},
            on_line=said.append,
            private_data_dir=tmp_path / "run",
        )

    first = configure()
    assert (first.changed, first.failed) == (1, 0)
    assert [f.stat().st_mode & 0o777 for f in folders] == [0o700, 0o700]
    assert any(line.startswith("TASK [host : Look at the host]") for line in said)
    folders[1].chmod(0o755)
    assert configure().changed == 1
    assert folders[1].stat().st_mode & 0o777 == 0o700
    last = configure()
    assert (last.changed, last.failed) == (0, 0)
    assert last.hosts["127.0.0.1"] == {"ok": last.ok, "changed": 0, "failed": 0, "unreachable": 0}
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file()]


def test_a_host_that_lacks_everything(tmp_path: Path) -> None:
    wanted = {
        "host_python_version": "4.0",
        "host_cpus": 9999,
        "host_memory": 1 << 60,
        "host_disk": 1 << 60,
        "host_gpus": 999,
        "host_programs": ["git", "no-such-program"],
    }
    with pytest.raises(AnsibleError) as caught:
        run_playbook(CONFIGURE, hosts=[LOCAL], variables=wanted, private_data_dir=tmp_path / "run")
    message = caught.value.message
    assert "127.0.0.1, task 'Check that it has what is needed'" in message
    for part in (
        "4.0 needed",
        "9999 needed",
        "1073741824.0 needed",
        "999 needed",
        "not installed: no-such-program",
        "free disk space",
    ):
        assert part in message


def test_a_host_that_cannot_be_reached(tmp_path: Path, give_up: Callable[[str], Never]) -> None:
    if not shutil.which("ssh"):
        give_up("there is no ssh here")
    away = LOCAL.model_copy(update={"connection": "ssh", "port": 1, "user": "nobody"})
    with pytest.raises(AnsibleError, match=r"127\.0\.0\.1 cannot be reached.*Look at the host"):
        run_playbook(CONFIGURE, hosts=[away], private_data_dir=tmp_path / "run")


def test_secrets_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, password = secrets.token_hex(16), secrets.token_hex(16)
    monkeypatch.setenv("SOME_PASSWORD", password)
    play = playbook(
        tmp_path,
        """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ token | length }} {{ lookup('ansible.builtin.env', 'SOME_PASSWORD') | length }}"
""",
    )
    said: list[str] = []
    seen: list[str] = []

    def look(line: str) -> None:
        said.append(line)
        for path in (tmp_path / "run").rglob("*"):
            text = path.read_text(errors="replace") if path.is_file() else ""
            if token in text or password in text:
                seen.append(f"{path.name} {path.stat().st_mode & 0o777:o}")
        for process in psutil.process_iter(["cmdline"]):
            if token in " ".join(process.info["cmdline"] or []):
                seen.append("command line")

    run_playbook(
        play,
        hosts=[LOCAL],
        variables={"token": token},
        on_line=look,
        private_data_dir=tmp_path / "run",
    )
    assert any('"32 0"' in line for line in said)
    assert set(seen) == {"inventory.json 600"}
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file()]


def test_cancelled(tmp_path: Path) -> None:
    play = playbook(tmp_path, SLEEP.format(folder=tmp_path, seconds=60))
    sleeping = tmp_path / "sleeping"
    begin = [0.0]

    def cancel() -> bool:
        if sleeping.exists():
            begin[0] = begin[0] or time.monotonic()
        return sleeping.exists()

    with pytest.raises(AnsibleError, match="was cancelled"):
        run_playbook(play, hosts=[LOCAL], private_data_dir=tmp_path / "run", cancel=cancel)
    assert time.monotonic() - begin[0] < 8
    assert not alive(wait_for(sleeping))


def test_a_time_limit(tmp_path: Path) -> None:
    play = playbook(tmp_path, SLEEP.format(folder=tmp_path, seconds=60))
    with pytest.raises(AnsibleError, match="took longer than 4 s"):
        run_playbook(play, hosts=[LOCAL], private_data_dir=tmp_path / "run", timeout=4)
    if (tmp_path / "sleeping").exists():
        assert not alive(wait_for(tmp_path / "sleeping"))


def test_what_a_killed_task_left_is_ended_by_the_next(tmp_path: Path) -> None:
    play = playbook(tmp_path, SLEEP.format(folder=tmp_path, seconds=60))
    code = (
        "import sys\nfrom pathlib import Path\nfrom tracklayer.targets import Host\n"
        "from tracklayer.tools.ansible import run_playbook\n"
        "run_playbook(Path(sys.argv[1]), hosts=[Host.model_validate_json(sys.argv[2])],\n"
        "             private_data_dir=Path(sys.argv[3]))\n"
    )
    task = subprocess.Popen(
        [sys.executable, "-c", code, str(play), LOCAL.model_dump_json(), str(tmp_path / "run")],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    pid = wait_for(tmp_path / "sleeping")
    os.killpg(task.pid, signal.SIGKILL)
    task.wait()
    play.write_text(SLEEP.format(folder=tmp_path, seconds=0))
    assert run_playbook(play, hosts=[LOCAL], private_data_dir=tmp_path / "run").failed == 0
    assert not alive(pid)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- hosts: all\n  tasks: [", "play.yaml"),
        ("- hosts: all\n  gather_facts: false\n  roles: [nope]\n", "nope"),
        (
            "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Break\n"
            "      ansible.builtin.raw: echo why >&2; exit 7\n",
            "127.0.0.1, task 'Break'",
        ),
    ],
)
def test_its_own_diagnosis(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(AnsibleError, match=r"play\.yaml failed") as caught:
        run_playbook(playbook(tmp_path, text), hosts=[LOCAL], private_data_dir=tmp_path / "run")
    assert says in caught.value.message


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnsibleError, match="cannot be used"):
        run_playbook(CONFIGURE, hosts=[LOCAL], private_data_dir=tmp_path / "file" / "run")
