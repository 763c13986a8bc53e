"""The program git, bound to one remote: what it may do there, and with whose login."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tracklayer.errors import SourceError, StoreError
from tracklayer.sources import Context, Credential
from tracklayer.sources.addresses import check_redirect, shown
from tracklayer.sources.api import Api
from tracklayer.store.disk import explained

_SECONDS = 3600
_SETTINGS = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "fetch.fsckObjects=true",
    "submodule.recurse=false",
    "http.followRedirects=false",  # we look first where one leads
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
)
_SSH = (
    *("BatchMode=yes", "StrictHostKeyChecking=yes", "ClearAllForwardings=yes", "ForwardAgent=no"),
    *("PermitLocalCommand=no", "ConnectTimeout=30", "ServerAliveInterval=15"),
)
_FULL = re.compile("No space left on device|Disk quota exceeded")
_MOVED = re.compile("The requested URL returned error: 30[12378]")
_ASKED = "/info/refs"  # below a repository, what git asks for first
_LITTLE = 1 << 20  # bytes with which git does not come far
_KEPT = ("GIT_SSL_", "GIT_CONFIG_", "GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR")


@dataclass(frozen=True)
class Git:
    """Runs git for one remote: its protocol alone, no hooks, no submodules, no prompts.

    Secrets are in owner-only files of the context's scratch folder; command lines and the
    environment have only the paths of these.
    """

    url: str
    scratch: Path
    settings: tuple[str, ...]
    ssh: tuple[str, ...]

    @classmethod
    def of(cls, url: str, context: Context) -> Git:
        """Git with the login that the context has for it, else with the user's own.

        The login: for https a name and a token (``password``); for ssh the text or the file of a
        key (``private_key``, ``key_file``) and the file of known hosts (``known_hosts_file``), as
        in the ``extra`` of Airflow's connections to git.

        :raises SourceError: the key cannot be used.
        """
        credential = context.credential("git")
        settings = [*_SETTINGS]
        ssh = ["ssh", *(part for option in _SSH for part in ("-o", option))]
        parts = urlsplit(url)
        if credential and parts.scheme == "ssh":
            ssh += _identity(credential, context.scratch)
        elif credential and credential.password and parts.scheme == "https":
            login = (
                f"username={credential.login or 'git'}\npassword={credential.password.strip()}\n"
            )
            file = shlex.quote(str(_secret(context.scratch, login)))
            # For this server only: git may be led to another one, and asks for a login there too.
            helper = f"!f() {{ test $1 = get && cat {file}; }}; f"
            settings += ["credential.helper=", f"credential.https://{parts.netloc}.helper={helper}"]
        return cls(url, context.scratch, tuple(settings), tuple(ssh))

    def __call__(self, *arguments: str, at: Path | None = None, said: str = "") -> str:
        """What git prints.

        :param at: the repository that it works in.
        :param said: its standard input.
        :raises SourceError: there is no git, it failed, it took too long.
        :raises StoreError: the disk is full.
        """
        command = ["git", *([f"--git-dir={at}"] if at else [])]
        for setting in self.settings:
            command += ["-c", setting]
        name = f"git {arguments[0]}"
        try:
            return self._run([*command, *arguments], name, said)
        except SourceError as error:
            if not _MOVED.search(error.message):
                raise
        moved = ["-c", f"url.{self._moved()}.insteadOf={self.url}"]
        return self._run([*command, *moved, *arguments], name, said)

    def _moved(self) -> str:
        """Where the server sends us, as it does when a repository has another name now.

        :raises SourceError: it may not send us there, or to no repository.
        """
        with Api(self.url, {}, lambda _line: None) as api:
            answer = api.ask("GET", f"{_ASKED}?service=git-upload-pack")
        there = str(answer.next_request.url if answer.next_request else answer.url)
        check_redirect(self.url, there)
        base, found, _ = there.partition(_ASKED)
        if not found or base == self.url:
            raise SourceError(
                f"{self.url} redirects to what is no repository: {shown(there)}",
                hint="Write the address at which the repository is now.",
            )
        return base

    def remote(self, program: str, *arguments: str) -> str:
        """What a program of an ssh host prints about the repository.

        :raises SourceError: the host refuses, or has no such program.
        """
        parts = urlsplit(self.url)
        port = ["-p", str(parts.port)] if parts.port else []
        user = f"{parts.username}@" if parts.username else ""
        path = re.sub("^/(?=~)", "", unquote(parts.path))  # as git does: ~ is a user's home
        asked = shlex.join([program, path, *arguments])
        return self._run([*self.ssh, *port, f"{user}{parts.hostname}", asked], program, "")

    def login(self, url: str) -> tuple[str, str]:
        """The name and the password or token with which git would open this address.

        :raises SourceError: git knows none.
        """
        parts = urlsplit(url)
        question = f"protocol={parts.scheme}\nhost={parts.netloc}\npath={parts.path[1:]}\n\n"
        answer = self("credential", "fill", said=question).splitlines()
        found = {name: value for name, _, value in (line.partition("=") for line in answer)}
        return found.get("username", ""), found.get("password", "")

    def _run(self, command: list[str], name: str, said: str) -> str:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or name.startswith(_KEPT)
        } | {
            "GIT_ALLOW_PROTOCOL": urlsplit(self.url).scheme,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": shlex.join(self.ssh),
            "GIT_SSH_VARIANT": "ssh",
            "LC_ALL": "C",
        }
        try:
            done = subprocess.run(
                command,
                env=environment,
                input=said.encode(),
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise SourceError(
                f"there is no {command[0]} on the PATH", hint=f"Install {command[0]}."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"{name} took longer than {_SECONDS} s on {self.url}") from error
        if done.returncode:
            what = done.stderr.decode(errors="replace").strip()[-2000:]
            # Not every part of git says why it could not write.
            if _FULL.search(what) or shutil.disk_usage(self.scratch).free < _LITTLE:
                raise StoreError(
                    f"{name} for {self.url}: {what}",
                    hint=f"Free some space on the file system of {self.scratch}.",
                )
            raise SourceError(f"{name} failed for {self.url}: {what}", hint=self._hint(what))
        return done.stdout.decode(errors="replace")

    def _hint(self, said: str) -> str | None:
        host = urlsplit(self.url).hostname
        if "could not read Username" in said or "Authentication failed" in said:
            return (
                "The repository wants a login, or does not exist. Name an Airflow connection with "
                "a token for it, or set up git's credential helper."
            )
        if "Host key verification failed" in said:
            return (
                f"This machine does not know {host}, or it is another one than before. Compare "
                f"what `ssh-keyscan {host}` prints with what its owner publishes, and add it to "
                "known_hosts."
            )
        if "Permission denied (" in said:
            return (
                "The host does not accept the key. Name an Airflow connection with private_key in "
                "its extra, or put the key into ssh-agent; the host must know its public half."
            )
        if "Could not resolve hostname" in said or "not found" in said:
            return "Is the address right?"
        if "does not appear to be a git repository" in said:
            return "Is the address right?"
        return None


def _identity(credential: Credential, scratch: Path) -> list[str]:
    """The options of ssh for a credential."""
    extra = credential.extra
    options: list[str] = []
    if known := extra.get("known_hosts_file"):
        options += ["-o", f'UserKnownHostsFile="{known}"']
    text, file = extra.get("private_key"), extra.get("key_file")
    if text:
        file = _secret(scratch, str(text).replace("\\n", "\n").replace("\r", "").strip() + "\n")
    if file:
        _check_key(str(file))
        options += ["-i", str(file), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
    return options


def _check_key(file: str) -> None:
    """ssh would only say "Permission denied"."""
    command = ["ssh-keygen", "-y", "-P", "", "-f", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().rpartition(":")[2].strip()
        raise SourceError(
            f"the private key of the git connection cannot be used: {said}",
            hint="It must be the whole text of a private key, without a passphrase; a key with one "
            "belongs into ssh-agent.",
        )


def _secret(folder: Path, text: str) -> Path:
    with explained(folder):
        descriptor, name = tempfile.mkstemp(dir=folder)  # owner-only
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    return Path(name)
