"""A service as supervisord knows it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracklayer.errors import PlatformError
from tracklayer.runtimes import launch

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
# What supervisord's files cannot say: a comment, a line's end, a quoted quote.
_UNSAYABLE = re.compile(r"[\n\r\"\\]|\s[;#]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A service that runs until it is removed.

    :param name: lower-case letters, digits, ``.``, ``_`` and ``-``.
    :param argv: the program and its arguments, any text.
    :param env: variables on top of what is passed on (see ``tracklayer.environment``), any text.
    :param secrets: names of the supervisor's secrets that it gets; ``AWS_*`` is all that begin so.
    :param autorestart: start it again whenever it ends.
    :param startsecs: seconds after which a start counts as good.
    :param stopwaitsecs: seconds between ``stopsignal`` and SIGKILL, both to its process group.
    :param priority: lower starts first and stops last.
    :param logfile: standard output and error, 10 MB and three older ones.
    """

    name: str
    argv: Sequence[str]
    logfile: Path
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    cwd: Path | None = None
    autorestart: bool = True
    startsecs: int = 1
    stopwaitsecs: int = 10
    stopsignal: str = "TERM"
    priority: int = 999

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise PlatformError(
                f"{self.name!r} cannot be the name of a service",
                hint="lower-case letters, digits, '.', '_' and '-'",
            )

    def definition(self) -> str:
        """What :mod:`tracklayer.runtimes.launch` reads; JSON, holds the variables."""
        return json.dumps(
            {
                "argv": list(self.argv),
                "env": dict(self.env),
                "secrets": list(self.secrets),
                "cwd": str(self.cwd) if self.cwd else None,
                "logfile": str(self.logfile),
                "stopwaitsecs": self.stopwaitsecs,
            },
            indent=1,
            sort_keys=True,
        )

    def definition_name(self) -> str:
        """Its file's name holds its digest: supervisord sees a change by the command."""
        digest = hashlib.sha256(self.definition().encode()).hexdigest()
        return f"{self.name}@{digest[:16]}.json"

    def configuration(self, folder: Path) -> str:
        """The section of supervisord's configuration; holds no variable."""
        command = [sys.executable, launch.__file__, str(folder / self.definition_name())]
        python, script, definition = (said(f'"{part}"', part) for part in command)
        return f"""[program:{self.name}]
command = {python} -S -P {script} {definition}
autorestart = {str(self.autorestart).lower()}
startsecs = {self.startsecs}
startretries = 1000000
stopwaitsecs = {self.stopwaitsecs}
stopsignal = {self.stopsignal}
stopasgroup = true
killasgroup = true
priority = {self.priority}
redirect_stderr = true
stdout_logfile = {said(str(self.logfile))}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceStatus:
    """A service now.

    :param state: supervisord's: STARTING, RUNNING, BACKOFF (died, will be started again), FATAL
        (given up), STOPPING, STOPPED, EXITED.
    :param pid: of the running process.
    :param uptime: seconds since its start, 0 if it does not run.
    :param exit_status: of its last process that ended.
    :param detail: why it does not run.
    """

    name: str
    state: str
    pid: int | None
    uptime: float
    exit_status: int | None
    detail: str


def said(text: str, raw: str | None = None) -> str:
    """A text for supervisord's configuration.

    :raises PlatformError: that format cannot carry it (it is a path that somebody chose).
    """
    raw = text if raw is None else raw
    if _UNSAYABLE.search(raw) or raw != raw.strip():
        raise PlatformError(
            f"supervisord cannot work with the path {raw!r}",
            hint="choose a TRACKLAYER_HOME without quotes, backslashes, newlines, ' ;' and ' #'",
        )
    return text.replace("%", "%%")
