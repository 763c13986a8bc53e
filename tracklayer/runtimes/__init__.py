"""How a job or a service runs on a host. A runtime is one module and one line in ``RUNTIMES``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracklayer.runtimes.job import Job as Job
    from tracklayer.runtimes.job import JobResult as JobResult
    from tracklayer.runtimes.job import Runtime as Runtime
    from tracklayer.runtimes.process import ProcessRuntime as ProcessRuntime
    from tracklayer.runtimes.program import Program as Program
    from tracklayer.runtimes.program import ServiceStatus as ServiceStatus
    from tracklayer.runtimes.supervisor import Supervisor as Supervisor

RUNTIMES = {"process": "tracklayer.runtimes.process:ProcessRuntime"}

# Imported when they are asked for: the guard of every job starts through this package.
_PUBLIC = {
    "Job": "tracklayer.runtimes.job",
    "JobResult": "tracklayer.runtimes.job",
    "Runtime": "tracklayer.runtimes.job",
    "ProcessRuntime": "tracklayer.runtimes.process",
    "Program": "tracklayer.runtimes.program",
    "ServiceStatus": "tracklayer.runtimes.program",
    "Supervisor": "tracklayer.runtimes.supervisor",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def runtime(name: str) -> Runtime:
    """The runtime of this name.

    :raises PlatformError: there is none.
    """
    from tracklayer.errors import PlatformError

    if name not in RUNTIMES:
        raise PlatformError(
            f"there is no runtime {name!r}", hint=f"known are: {', '.join(sorted(RUNTIMES))}"
        )
    module, _, attribute = RUNTIMES[name].partition(":")
    made: Runtime = getattr(import_module(module), attribute)()
    return made
