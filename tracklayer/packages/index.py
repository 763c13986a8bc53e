"""Where packages come from: pip's configuration, in uv's variables.

uv does not read what pip reads, and people have set pip up for their company's index. The files
are read here, not by ``pip config list``: that starts an interpreter, and pip is not everywhere.
Source: "Configuration" in pip's user guide.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from configparser import Error, RawConfigParser
from pathlib import Path

from tracklayer.errors import PackagesError

_SECTIONS = ("global", "install")  # the later one wins, whatever the file
_OWN_INDEX = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")


def uv_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that make uv look where pip would. Secrets in addresses stay in variables.

    What is set for uv itself is passed on and wins; a set index leaves pip's indexes out.

    :raises PackagesError: a configuration file of pip cannot be read.
    """
    source = os.environ if environment is None else environment
    pip = pip_configuration(source)
    own = {name: value for name, value in source.items() if name.startswith("UV_")}
    found: dict[str, str] = {}
    if not any(name in own for name in _OWN_INDEX):
        found = _indexes(pip)
    if "cert" in pip:
        found["SSL_CERT_FILE"] = pip["cert"]
    if "client-cert" in pip:
        found["SSL_CLIENT_CERT"] = pip["client-cert"]
    if "proxy" in pip:
        found |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _with_scheme(pip))
    if "trusted-host" in pip:
        found["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if "timeout" in pip:
        found["UV_HTTP_TIMEOUT"] = pip["timeout"]
    return found | own


def no_index(environment: Mapping[str, str] | None = None) -> bool:
    """pip is told to use no index; uv has an option for it and no variable."""
    pip = pip_configuration(os.environ if environment is None else environment)
    return pip.get("no-index", "").lower() in ("1", "true", "yes", "on")


def pip_configuration(environment: Mapping[str, str]) -> dict[str, str]:
    """Option -> value, as ``pip install`` would see it."""
    by_section: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for file in _files(environment):
        parser = RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (Error, UnicodeDecodeError) as error:
            raise PackagesError(f"pip's configuration {file} cannot be read: {error}") from error
        for section, options in by_section.items():
            if parser.has_section(section):
                options |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    found = {name: value for options in by_section.values() for name, value in options.items()}
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return found


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """pip's files, the one that wins last."""
    chosen = environment.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    home = Path(environment.get("HOME") or Path.home())
    shared = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    for folder in reversed(shared.split(os.pathsep)):
        yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    if not (chosen and Path(chosen).exists()):  # it stands in for the user's own
        yield home / ".pip" / "pip.conf"
        yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix, "pip.conf")
    if chosen:
        yield Path(chosen)


def _indexes(pip: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if "index-url" in pip:
        found["UV_DEFAULT_INDEX"] = pip["index-url"]
    if "extra-index-url" in pip:
        found["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        # pip compares the versions of all its indexes; uv stops at the first that has the name.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if "find-links" in pip:
        found["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    return found


def _with_scheme(pip: Mapping[str, str]) -> str:
    proxy = pip["proxy"]
    return proxy if "://" in proxy else f"http://{proxy}"
