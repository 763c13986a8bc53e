"""What every step has in common: the run record, the project's files, errors told in full."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.retry_policy import RetryAction, RetryDecision, RetryPolicy

from tracklayer.errors import ProjectError, TracklayerError
from tracklayer.private import run_name
from tracklayer.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    from tracklayer.spec import Spec
    from tracklayer.store import Manifest
    from tracklayer.tracking import RunRecord, Tracking
    from tracklayer_airflow.bundle import ProjectBundle


class StepFailed(SystemExit):
    """A step failed for a reason that its log has told in full.

    Airflow logs a traceback for every exception but ``SystemExit``, and a traceback of ours says
    nothing about a mistake of the user's.
    """


class RetryOnlyInterruptions(RetryPolicy):
    """Try again what was interrupted; what failed for a reason would fail again."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  the signature is Airflow's
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        if isinstance(exception, StepFailed):
            return RetryDecision(action=RetryAction.FAIL, reason=None)
        return RetryDecision(action=RetryAction.DEFAULT, reason=None)


class StepOperator(BaseOperator):
    """Base of the operators of all steps. A subclass says in ``perform`` what it does.

    :param spec: of the project.
    :param item: the entry of the spec that this step is for, such as the name of a source.
    :param commit: where the project's files are; default: the version of the DAG's bundle.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#e8f0fe"

    def __init__(
        self, *, spec: Spec, item: str | None = None, commit: str | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("retries", 2)
        kwargs.setdefault("retry_delay", 1.0)
        super().__init__(**kwargs)
        self.spec = spec
        self.item = item
        self.commit = commit
        self.retry_policy = RetryOnlyInterruptions()

    def execute(self, context: Context) -> dict[str, Any]:
        """Perform the step and note the outcome in the run record.

        :returns: a reference to the run record, never data.
        """
        try:
            record = self.record(context)
            record.write(self.task_id, self.perform(context, record))
        except TracklayerError as error:
            for line in str(error).splitlines():
                self.log.error(line)
            raise StepFailed(error.exit_code) from None
        return {"record": str(record.folder), "step": self.task_id}

    @abstractmethod
    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:
        """Do what the step is for.

        :param record: of this run; what earlier steps noted is read from it.
        :returns: what this step adds to the run record, as JSON.
        :raises TracklayerError: it cannot be done; the message is for the user.
        """

    def record(self, context: Context) -> RunRecord:
        """The run record of the DAG run."""
        from tracklayer.tracking import RunRecord, run_folder

        run_id = context["run_id"]
        record = RunRecord(run_folder(settings().runs, self.spec.name, run_id))
        record.begin(project=self.spec.name, run=run_id, commit=self.pinned_commit(context))
        return record

    def pinned_commit(self, context: Context) -> str:
        """The commit whose files this run uses."""
        if self.commit:
            return self.commit
        version = self._bundle(context).get_current_version()
        if version is None:
            raise ProjectError("The repository of projects cannot be read.")
        return version.version

    def private(self, context: Context, part: str, **size: int) -> Path:
        """Where a part of what this run has decrypted lies, or is to be put; gone with the run."""
        from tracklayer.private import run_folder

        return run_folder(self.spec.name, context["run_id"], part, **size)

    def materialised(self, context: Context, digest: str, part: str) -> Path:
        """The files of a tree of the store, decrypted once a run."""
        from tracklayer.store import open_store

        store = open_store()
        folder = self.private(context, part, size=store.manifest(digest).size)
        if not folder.exists():
            store.materialise(digest, folder)
        return folder

    def hold(self, context: Context, manifest: Manifest) -> None:
        """Keep a tree in the store for as long as this run goes on."""
        from tracklayer.store import open_store

        run = run_name(context["run_id"])
        open_store().set_ref(f"runs/{self.spec.name}/{run}/{self.task_id}", manifest)

    def project_folder(self, context: Context) -> Path:
        """The project's files at the commit of the run, unpacked once a run."""
        commit = self.pinned_commit(context)
        folder = self.private(context, f"project-{commit[:12]}")
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".project-") as partial:
                files = Path(partial, "files")
                self._unpack(self._bundle(context).bare_repo_path, commit, files)
                try:
                    files.rename(folder)
                except OSError:
                    if not folder.exists():  # and no step beside this one was faster
                        raise
        return folder / self.spec.name

    def _unpack(self, bare: Path, commit: str, folder: Path) -> None:
        argv = ["git", "-C", str(bare), "archive", commit, "--", self.spec.name]
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=said) as process,
        ):
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    archive.extractall(folder, filter="data")
            except tarfile.FilterError as error:
                raise ProjectError(
                    f"The project {self.spec.name} has a file that is not taken: {error}.",
                    hint="A link must lead to a file of the project, by a relative path.",
                ) from None
            except tarfile.ReadError:
                process.wait()
                said.seek(0)
                why = said.read().decode(errors="replace").strip()
                raise ProjectError(
                    f"The files of {self.spec.name} at {commit} cannot be read: {why}"
                ) from None

    def _bundle(self, context: Context) -> ProjectBundle:
        # The protocol that a context declares for it has less than every task instance has.
        return cast("ProjectBundle", cast("RuntimeTaskInstance", context["ti"]).bundle_instance)

    def line_logger(self) -> Callable[[str], None]:
        """A function that writes one line of a program's output into the task's log."""
        return self.log.info

    def tracking(self) -> Tracking:
        """The tracking server."""
        from tracklayer.tracking import Tracking

        return Tracking(settings().mlflow_url)
