"""Where large files are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Context
from tracklayer.sources.git_program import Git
from tracklayer.sources.lfs import Pointer, contents


@pytest.mark.parametrize("address", ["https://10.0.0.1/lfs", "https://[fd00::1]/lfs"])
def test_a_public_host_of_ssh_does_not_lead_into_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    ssh = tmp_path / "ssh"  # says what a server on the other side may say
    ssh.write_text(f'#!/bin/sh\necho \'{{"href": "{address}"}}\'\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    git = Git.of("ssh://git@8.8.8.8/r.git", Context(tmp_path, tmp_path))
    pointer = Pointer("m.bin", "0" * 64, 1, executable=False, extended=False)
    with pytest.raises(SourceError, match="redirects to the private address"):
        list(contents(git, [pointer], print))
