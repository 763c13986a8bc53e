"""The ``git`` program, run without a shell, a hook, a question or a secret in its arguments."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from tracklayer.errors import ProjectError

# What a person sets to reach a remote is kept; what binds git to another repository is not.
_KEPT = re.compile(r"GIT_(SSH|SSL|ASKPASS|PROXY|HTTP|TRACE|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM))")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class Git:
    """Commands on one git folder.

    :param folder: the git folder itself.
    :param settings: values that go before those of the user's own configuration. They travel in
        the environment, which other users of the machine cannot read.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        *arguments: str,
        stdin: bytes | Iterable[bytes] = b"",
        work_tree: Path | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Run one command to its end and return what it printed.

        :param stdin: what the command reads, whole or in parts.
        :param work_tree: folder of the files that the command looks at, and starts in.
        :param timeout: seconds, for a command that talks to a remote.
        :raises GitError: it failed; with git's own message.
        :raises ProjectError: there is no git, or it took too long.
        """
        environment = self._environment()
        if work_tree:
            # An index that does not exist is an empty one: every file is new.
            index = str(self.folder / "no-index")
            environment |= {"GIT_WORK_TREE": str(work_tree), "GIT_INDEX_FILE": index}
        try:
            with subprocess.Popen(
                ["git", *arguments],
                cwd=work_tree or "/",
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                output, errors = _converse(process, stdin, timeout)
        except FileNotFoundError:
            hint = "Install it: `apt install git`, `dnf install git` or `brew install git`."
            raise ProjectError("The program `git` was not found.", hint=hint) from None
        if process.returncode:
            raise GitError(arguments[0], errors.decode(errors="replace"))
        return output

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or _KEPT.match(k)}
        settings = {
            "core.hooksPath": os.devnull,
            "core.excludesFile": os.devnull,
            "maintenance.auto": "false",
            "gc.auto": "0",
            "push.gpgSign": "false",
            "protocol.ext.allow": "never",
            **self.settings,
        }
        for number, (key, value) in enumerate(settings.items()):
            kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return {
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            **kept,
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_DIR": str(self.folder),
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }


def _converse(
    process: subprocess.Popen[bytes], stdin: bytes | Iterable[bytes], timeout: float | None
) -> tuple[bytes, bytes]:
    """Feed a process and read all that it prints. It does not outlive an error here."""
    try:
        if isinstance(stdin, bytes):
            return process.communicate(stdin, timeout=timeout)
        # Only for commands that print next to nothing, so that neither side can wait forever.
        with suppress(BrokenPipeError):  # it has ended already; its own message says why
            for part in stdin:
                cast(IO[bytes], process.stdin).write(part)
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        message = f"git got no answer from the repository within {timeout:.0f} s."
        raise ProjectError(message, hint="Check its address and the network.") from None
    except BaseException:
        process.kill()
        raise


class GitError(ProjectError):
    """A git command failed. ``said`` is what it printed, without passwords."""

    def __init__(self, command: str, said: str) -> None:
        self.said = redact(said.strip())
        lines = [line for line in self.said.splitlines() if not line.startswith("hint:")]
        super().__init__(f"git {command} failed: " + ("\n".join(lines) or "it said nothing"))


def redact(text: str) -> str:
    """The text without the user and password of any address in it."""
    return _PASSWORD.sub("***@", text)
