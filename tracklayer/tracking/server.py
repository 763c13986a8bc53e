"""MLflow's tracking server as the platform starts it: one process on SQLite.

``mlflow server`` starts the same application from a second process that only waits for it, and
beside it nine that wait for jobs of MLflow's features for language models. Measured with MLflow
3.17.2 and an empty home (resident memory and processor time, summed, until ``/health`` answers)::

    mlflow server                                       3140 MB   32.2 s   15 processes
    mlflow server --workers 1, no job execution          500 MB    8.4 s    2 processes
    this module                                          264 MB    5.5 s    1 process

Artifacts are in the store of the settings, encrypted with all else. The little that MLflow writes
in plain while it works (a trace, an upload by its own page) is in a private folder.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tracklayer.errors import TracklayerError
from tracklayer.files import locked
from tracklayer.tracking.destination import DESTINATION, ROOT

if TYPE_CHECKING:
    from tracklayer.store import Store


def command(home: Path, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """The command line of the server and what its environment needs beside the usual.

    :param home: folder of the database; made if it is not there.
    """
    module = [sys.executable, "-m", "tracklayer.tracking.server"]
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MALLOC_ARENA_MAX": "2",  # threads share their free memory
    }
    return [*module, "--home", str(home), "--host", host, "--port", str(port)], environment


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal ends it. ``/health`` answers only when the database is ready."""
    parser = argparse.ArgumentParser(prog="python -m tracklayer.tracking.server")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    home = options.home.absolute()
    os.umask(0o077)
    home.mkdir(parents=True, exist_ok=True)
    os.environ |= command(home, options.host, options.port)[1]
    # After its own orderly end, uvicorn passes on the signal that asked for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())

    # First: importing MLflow's server looks for a web server, and guards itself only beside one.
    import uvicorn

    from tracklayer.private import sweep_temporary, temporary
    from tracklayer.store import open_store

    with locked(home / ".lock"), temporary() as folder:
        sweep_temporary()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            adopt(home / "artifacts", open_store())
        except (TracklayerError, OSError) as error:
            sys.exit(f"The MLflow server cannot start: {error}")
        _serve(uvicorn, home, options.host, options.port)


def adopt(folder: Path, store: Store) -> None:
    """Move the artifacts that an older version kept as plain files into the store.

    A file is deleted when its reference is on the disk; whoever is killed in between goes on at
    the next start.

    :raises StoreError: the store is full or not writable, or a file cannot be read.
    """
    from mlflow.store.artifact.local_artifact_repo import _TEMP_ARTIFACT_PREFIX

    for parent, _, names in os.walk(folder, topdown=False):
        for file in (Path(parent, name) for name in names):
            if not file.name.startswith(_TEMP_ARTIFACT_PREFIX):  # an upload that was cut off
                path = file.relative_to(folder).as_posix()
                with store.session():
                    store.set_ref(f"{ROOT}/{path}", store.put_file(file))
            file.unlink()
        with suppress(OSError):  # a link to another disk stays, empty
            Path(parent).rmdir()


def _serve(uvicorn: ModuleType, home: Path, host: str, port: int) -> None:
    """Start the application as ``mlflow server`` starts its workers."""
    from mlflow.server import constants, handlers
    from mlflow.server.fastapi_app import app

    from tracklayer.tracking import downloads

    database, artifacts = f"sqlite:///{home / 'mlflow.db'}", "mlflow-artifacts:/"
    os.environ |= {
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: DESTINATION,
    }
    handlers.initialize_backend_stores(database, database, artifacts)
    downloads.install(app)
    options = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": 5}
    uvicorn.run(app, host=host, port=port, **options)


if __name__ == "__main__":
    main()
