"""The DAG bundle: a git repository of projects, seen by Airflow as one small DAG file a project.

Airflow parses only the stubs that this bundle writes; nothing that a user pushed is imported by a
process of Airflow's. There is no working tree: specs are read from the bare clone, and a step that
needs the project's files takes them from there, at the commit of its run.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog
from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion
from airflow.providers.git.bundles.git import GitDagBundle
from git import Git, InvalidGitRepositoryError, NoSuchPathError, Repo

from tracklayer.projects import Repository
from tracklayer_airflow.dag import OPERATORS
from tracklayer_airflow.stubs import write_stubs

# Airflow forks a process for each stub: what all of them need is imported once, before.
for _module in (
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.sensors.external_task",
    *sorted({path.partition(":")[0] for path in OPERATORS.values()}),
):
    import_module(_module)

log = structlog.get_logger(__name__)


class ProjectBundle(GitDagBundle):
    """A ``GitDagBundle`` whose DAG files are written from the specs in the repository.

    The stubs of the tracked branch are in ``stubs/``, those of a pinned commit in
    ``versions/<commit>/``; both change only under the bundle's lock.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.repo_path = (
            self.versions_dir / self.version if self.version else self.base_dir / "stubs"
        )
        self._commit: str | None = self.version
        self._seen: object = None

    @property
    def path(self) -> Path:
        """Folder of the stubs."""
        return Path(self.repo_path)

    @property
    def projects(self) -> Repository:
        """The bare clone, to read commits that it has."""
        bare = Path(self.bare_repo_path)
        return Repository(str(bare), branch=self.tracking_ref, cache=bare)

    def initialize(self) -> None:
        """Write the stubs of the tracked branch or of the pinned commit.

        A failure for the tracked branch is logged and mended by a later refresh, since an
        exception would blind every project of the bundle. For a pinned commit it fails the task.
        """
        if self.version is None:
            self.path.mkdir(parents=True, exist_ok=True)
            self.refresh()
        elif not self.path.is_dir():
            with self.lock():
                if not self.path.is_dir():  # nobody was faster
                    self._bring(self.version)
                    self._write_pinned(self.version)
        BaseDagBundle.initialize(self)

    def refresh(self) -> None:
        """Take over the newest commit of the tracked branch; never raises, see ``initialize``."""
        try:
            with self.lock():
                # Looking is cheap and fetching is not, and this is done every second.
                newest = self._newest()
                if self._commit is None or newest != self._seen:
                    self._fetch()
                    with Repo(self.bare_repo_path) as bare:
                        commit = bare.commit(f"refs/heads/{self.tracking_ref}").hexsha
                    write_stubs(self.projects, commit, self.path)
                    self._commit, self._seen = commit, newest
        except Exception as error:  # noqa: BLE001
            log.error("Cannot read the repository of projects", url=self.repo_url, error=str(error))

    # BaseDagBundle, by which Airflow calls it, allows for None; GitDagBundle always has a version,
    # or raises, which would blind every project.
    def get_current_version(self) -> BundleVersion | None:  # type: ignore[override]
        """The commit of the stubs; None while the repository cannot be read."""
        return BundleVersion(version=self._commit) if self._commit else None

    def _credentials(self) -> AbstractContextManager[None]:
        return self.hook.configure_hook_env() if self.hook else nullcontext()

    def _newest(self) -> object:
        """Something that is another when the tracked branch of the remote is."""
        ref = f"refs/heads/{self.tracking_ref}"
        local = Path(str(self.repo_url))
        if (
            local / "HEAD"
        ).is_file():  # no program needs to be started: git-pack-refs(1), gitrepository-layout(5)
            files = (local / ref, local / "packed-refs")
            return [(f.stat().st_mtime_ns, f.stat().st_ino) if f.exists() else None for f in files]
        with self._credentials():
            env = self.hook.env if self.hook else {}
            return Git().ls_remote("--", str(self.repo_url), ref, env=env)

    def _fetch(self) -> None:
        with self._credentials():
            self._clone_bare_repo_if_required()
        self.bare_repo.close()
        # A step gets all that was committed: this goes before a user's own gitattributes(5).
        attributes = Path(self.bare_repo_path, "info", "attributes")
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text("* -export-ignore -export-subst\n")

    def _bring(self, commit: str) -> None:
        """Have the commit in the bare clone; the remote is asked only for one that is not there."""
        with (
            suppress(InvalidGitRepositoryError, NoSuchPathError),
            Repo(self.bare_repo_path) as bare,
        ):
            if self._has_version(bare, commit):
                return
        self._fetch()
        self._ensure_version_in_bare_repo()

    def _write_pinned(self, commit: str) -> None:
        partial = self.path.with_name(f"{commit}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_stubs(self.projects, commit, partial)
        partial.rename(self.path)  # the folder is complete or not there
