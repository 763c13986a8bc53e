"""What a run has decrypted, and what the store keeps for it, goes when the run is over.

``python -m tracklayer.platform.sweep PROJECT RUN`` does it for one run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer.errors import TracklayerError
from tracklayer.private import remove_run, run_folders, run_name, sweep_temporary

if TYPE_CHECKING:
    from tracklayer.store import Store

_REFS = "runs"


def sweep(alive: Callable[[], Collection[tuple[str, str]]]) -> None:
    """Remove what is left of every run that is over, and of killed processes.

    :param alive: asks for project and run of each run that goes on. It is asked after it was noted
        what is there, so that a run that begins meanwhile keeps what it has.
    :raises TracklayerError: something cannot be removed.
    """
    from tracklayer.store import open_store

    store = open_store()
    there = {(folder.parent.name, folder.name) for folder in run_folders()}
    there |= {_owner(ref.name) for ref in store.refs(f"{_REFS}/")}
    there -= {(project, run_name(run)) for project, run in alive()}
    for project, name in sorted(there):
        _remove(store, project, name)
    sweep_temporary()


def end_run(project: str, run: str) -> None:
    """Remove what is left of one run.

    :raises TracklayerError: something cannot be removed.
    """
    from tracklayer.store import open_store

    _remove(open_store(), project, run_name(run))


def _remove(store: Store, project: str, name: str) -> None:
    from tracklayer.runtimes import ProcessRuntime

    for folder in run_folders(project, name):
        for job in ProcessRuntime.running(folder):
            ProcessRuntime.end(job)
    remove_run(project, name)
    for ref in list(store.refs(f"{_REFS}/{project}/{name}/")):
        store.drop_ref(ref.name)


def _owner(ref: str) -> tuple[str, str]:
    _, project, name, _ = Path(ref).parts
    return project, name


if __name__ == "__main__":
    try:
        end_run(*sys.argv[1:])
    except TracklayerError as error:
        sys.exit(f"What the run has left cannot be removed: {error}")
