"""A disk that is full at any write of a fetch: an error that says so, and nothing half done."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracklayer.errors import SourceError, StoreError
from tracklayer.sources import fetch
from tracklayer.store import Store, keys_of

if TYPE_CHECKING:
    from tests.integration.conftest import TightDisk

ROWS = b"a,b\n" + b"1,2\n" * 3000  # three pages
PAGE = os.sysconf("SC_PAGE_SIZE")
Offer = Callable[[Any, Path], str]


def of_the_project(_server: Any, folder: Path) -> str:
    (folder / "data").mkdir()
    for name in ("a.csv", "b.csv"):
        (folder / "data" / name).write_bytes(ROWS + name.encode())
    return "path:data"


def of_the_web(server: Any, _folder: Path) -> str:
    server.files["/rows.csv"] = ROWS
    return f"{server.url('/rows.csv')}#sha256={hashlib.sha256(ROWS).hexdigest()}"


def in_parts(server: Any, _folder: Path) -> str:
    content = random.Random(7).randbytes(5 << 20)
    server.files["/f.bin"] = content
    return f"{server.url('/f.bin')}#sha256={hashlib.sha256(content).hexdigest()}"


def packed(server: Any, _folder: Path) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for name in ("a.csv", "deep/b.csv"):
            members.writestr(name, ROWS + name.encode())
    server.files["/rows.zip"] = archive.getvalue()
    digest = hashlib.sha256(archive.getvalue()).hexdigest()
    return f"{server.url('/rows.zip')}#sha256={digest}"


def of_a_repository(_server: Any, folder: Path) -> str:
    for command in (
        ["init", "-q", "-b", "main", "."],
        ["add", "-A"],
        ["-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-q", "-m", "rows"],
    ):
        (folder / "repository").mkdir(exist_ok=True)
        (folder / "repository" / "rows.csv").write_bytes(ROWS)
        subprocess.run(["git", *command], cwd=folder / "repository", check=True)
    return f"git+file://{folder}/repository@main"


@pytest.mark.parametrize(
    ("offer", "step"),
    [(of_the_project, 1), (of_the_web, 1), (packed, 1), (of_a_repository, 5), (in_parts, 97)],
)
def test_at_every_page(
    tight_disk: TightDisk, tmp_path: Path, hostile_server: Any, offer: Offer, step: int
) -> None:
    """It is full after so many pages; then there is room, and the same fetch comes to its end."""
    project = tmp_path / "project"
    project.mkdir()
    handle = offer(hostile_server, project)
    refused = 0
    for pages in range(0, 4000, step):
        root = tight_disk.folder / f"store {pages}"
        root.mkdir()
        store = Store(root, keys_of(f"file:{tmp_path}/keys/store", root=tmp_path))

        def get(store: Store = store) -> list[bytes]:
            allow = frozenset({"unknown"})
            found = fetch(handle, project=project, store=store, allow=allow)
            contents = []
            for file in found.manifest.files:
                with store.open(file) as stream:
                    contents.append(stream.read())
            return contents

        tight_disk.leave(pages)
        try:
            get()
            done = True
        except (StoreError, SourceError) as error:
            done = False
            assert "Free some space" in str(error)  # noqa: PT017 - or it came to its end
            assert list(store.root.glob("tmp/*")) == []
        tight_disk.clear()
        assert store.verify() == []
        assert sum(map(len, get())) > 2 * PAGE
        assert store.verify() == []
        assert [path for path in store.root.rglob("*") if path.parent.name == "tmp"] == []
        subprocess.run(["rm", "-r", root], check=True)
        if done:
            break
        refused += 1
    assert done
    assert refused > 3
