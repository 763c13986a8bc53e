"""Ansible through ansible-runner: a playbook over hosts, its lines, its result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from tracklayer.errors import AnsibleError
from tracklayer.tools.intent import write_private

_POLL = 0.2  # seconds between two questions whether to cancel
_GRACE = 3.0  # seconds from an interrupt to a hard end; Airflow gives a killed task five
_LONGEST = 4000

# Of this process's environment Ansible gets these: ansible-runner writes all it gets into a file.
_PASSED = (
    "ANSIBLE_", "HOME", "LANG", "LC_", "LOGNAME", "PATH", "PYTHONPATH", "SSH_", "TMPDIR", "USER",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip


class AnsibleHost(Protocol):
    """What is to be known about a host; :class:`tracklayer.targets.Host` is one."""

    @property
    def address(self) -> str:
        """IP address or name."""

    @property
    def port(self) -> int:
        """Port of its SSH server."""

    @property
    def user(self) -> str | None:
        """Who logs in."""

    @property
    def python(self) -> str:
        """Path of its Python interpreter."""

    @property
    def connection(self) -> str:
        """``ssh`` or ``local``."""


@dataclass(frozen=True, slots=True)
class PlaybookResult:
    """How many tasks went how, over all hosts; ``hosts`` has the same for each address."""

    ok: int
    changed: int
    failed: int
    hosts: dict[str, dict[str, int]]


@dataclass
class _Events:
    """What the events of a run say."""

    on_line: Callable[[str], None]
    failures: list[str] = field(default_factory=list)
    stats: dict[str, dict[str, int]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __call__(self, event: dict[str, Any]) -> bool:
        data = event.get("event_data", {})
        lines = [line for line in str(event.get("stdout", "")).splitlines() if line.strip()]
        self.said = (self.said + lines)[-20:]
        for line in lines:
            self.on_line(line.rstrip())
        kind = event.get("event")
        if kind == "playbook_on_stats":
            self.stats = data
        elif kind == "runner_on_unreachable" or (
            kind == "runner_on_failed" and not data.get("ignore_errors")
        ):
            unreachable = " cannot be reached" if kind == "runner_on_unreachable" else ""
            self.failures.append(
                f"{data.get('host')}{unreachable}, task {data.get('task')!r}: "
                f"{_reason(data.get('res', {}))}"
            )
        return False  # nothing is kept on the disk

    def result(self) -> PlaybookResult:
        def count(*kinds: str) -> int:
            return sum(sum(self.stats.get(kind, {}).values()) for kind in kinds)

        names = self.stats.get("processed", {})
        kinds = {"ok": "ok", "changed": "changed", "failed": "failures", "unreachable": "dark"}
        hosts = {
            name: {kind: self.stats.get(key, {}).get(name, 0) for kind, key in kinds.items()}
            for name in names
        }
        return PlaybookResult(count("ok"), count("changed"), count("failures", "dark"), hosts)


def run_playbook(
    playbook: Path,
    *,
    hosts: Sequence[AnsibleHost],
    variables: Mapping[str, object] | None = None,
    on_line: Callable[[str], None] | None = None,
    private_data_dir: Path,
    cancel: Callable[[], bool] | None = None,
    timeout: float = 3600,
) -> PlaybookResult:
    """Run a playbook on hosts; roles come from ``../roles`` beside it.

    What an earlier run in the same ``private_data_dir`` left running is ended first: a playbook
    can be run again from the start.

    :param variables: for all hosts; reach Ansible in an owner-only file that is removed afterwards.
    :param private_data_dir: folder for this run, made if missing, owner-only.
    :param cancel: asked several times a second; True interrupts the playbook once.
    :param timeout: in seconds.
    :raises AnsibleError: a task failed, a host cannot be reached, it was cancelled or took too
        long. The message names host and task.
    """
    private_data_dir = private_data_dir.absolute()
    try:
        private_data_dir.mkdir(parents=True, exist_ok=True)
        private_data_dir.chmod(0o700)
        inventory = private_data_dir / "inventory.json"
        _end(inventory)
        write_private(inventory, json.dumps(_inventory(hosts, dict(variables or {}))))
    except OSError as error:
        raise AnsibleError(f"the folder {private_data_dir} cannot be used: {error}") from error
    events = _Events(on_line or (lambda _line: None))
    asked = _Cancel(cancel, inventory)
    try:
        status = _run(playbook.absolute(), inventory, events, asked, timeout)
    finally:
        _end(inventory)
        inventory.unlink(missing_ok=True)
        shutil.rmtree(private_data_dir / "artifacts", ignore_errors=True)
    if asked.since is not None:
        raise AnsibleError(
            f"{playbook.name} was cancelled",
            hint="Running it again starts from the beginning and changes only what is missing.",
        )
    if status == "timeout":
        raise AnsibleError(f"{playbook.name} took longer than {timeout:.0f} s")
    if events.failures:
        raise AnsibleError(f"{playbook.name} failed\n" + "\n".join(events.failures)[:_LONGEST])
    if status != "successful":
        raise AnsibleError(f"{playbook.name} failed\n" + "\n".join(events.said)[-_LONGEST:])
    return events.result()


class _Cancel:
    """Interrupts the playbook at the first wish; ansible-runner kills it if that was not enough."""

    def __init__(self, wish: Callable[[], bool] | None, inventory: Path) -> None:
        self.wish, self.inventory = wish, inventory
        self.since: float | None = None

    def __call__(self) -> bool:
        if self.since is None and self.wish and self.wish():
            self.since = time.monotonic()
            for process in _playbooks(self.inventory)[:1]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)
        return self.since is not None and time.monotonic() > self.since + _GRACE


def _run(playbook: Path, inventory: Path, events: _Events, asked: _Cancel, timeout: float) -> str:
    from ansible_runner import Runner, RunnerConfig
    from ansible_runner.exceptions import AnsibleRunnerException

    beside = str(Path(sys.executable).parent)
    config = RunnerConfig(
        private_data_dir=str(inventory.parent),
        playbook=str(playbook),
        inventory=str(inventory),
        roles_path=str(playbook.parent.parent / "roles"),
        settings={"pexpect_timeout": _POLL, "suppress_output_file": True},
        timeout=max(1, int(timeout)),
        quiet=True,
        suppress_env_files=True,
        fact_cache_type="memory",
        envvars={
            # ansible-runner turns the check of host keys off unless told otherwise.
            "ANSIBLE_HOST_KEY_CHECKING": os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True"),
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_NOCOWS": "True",
            "ANSIBLE_NOCOLOR": "True",
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
            "ANSIBLE_LOCAL_TEMP": str(inventory.parent / "tmp"),
            "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        },
    )
    try:
        config.prepare()
        config.command[0] = str(Path(beside) / config.command[0])
        config.env = {name: value for name, value in config.env.items() if _passed(name)}
        runner = Runner(config, cancel_callback=asked, event_handler=events)
        return str(runner.run()[0])
    except (AnsibleRunnerException, OSError) as error:
        raise AnsibleError(f"ansible-playbook cannot be run: {error}") from error


def _passed(name: str) -> bool:
    return name.startswith((*_PASSED, "AWX_", "RUNNER_", "ORIGINAL_"))


def _inventory(hosts: Sequence[AnsibleHost], variables: dict[str, object]) -> dict[str, Any]:
    known: dict[str, dict[str, object]] = {}
    for host in hosts:
        known[host.address] = {
            "ansible_host": host.address,
            "ansible_port": host.port,
            "ansible_connection": host.connection,
            "ansible_python_interpreter": host.python,
            **({"ansible_user": host.user} if host.user else {}),
        }
    return {"all": {"hosts": known, "vars": variables}}


def _playbooks(inventory: Path) -> list[psutil.Process]:
    """The playbooks over an inventory that run now, with their workers; the first came first."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        line = process.info["cmdline"] or []
        if str(inventory) in line and any(Path(part).name == "ansible-playbook" for part in line):
            found.append(process)
    return sorted(found, key=lambda process: float(process.info["create_time"]))


def _end(inventory: Path) -> None:
    """End every process of the playbooks over an inventory, also those in sessions of their own."""
    tree: list[psutil.Process] = []
    for process in _playbooks(inventory):
        with suppress(psutil.NoSuchProcess):
            tree += [process, *process.children(recursive=True)]
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(tree, timeout=1)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _reason(result: dict[str, Any]) -> str:
    """The message of a task, and what a failed command said."""
    if result.get("censored"):
        return str(result["censored"])
    parts = [result.get("msg"), result.get("stderr"), result.get("module_stderr")]
    parts += [_reason(item) for item in result.get("results", []) if item.get("failed")]
    return "\n".join(str(part).strip() for part in parts if part) or json.dumps(result)
