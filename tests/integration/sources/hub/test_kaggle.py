"""Fetching from a hub that speaks Kaggle's protocol, beside Kaggle's own client."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Credential

if TYPE_CHECKING:
    from tests.conftest import Hub
    from tests.integration.sources.hub.conftest import Person

ROWS = {f"sub/part-{number:02}.csv": b"x,y\n%d,1\n" % number for number in range(45)}
KEY = Credential("me", secrets.token_hex(16))


@pytest.fixture
def kaggle(hub: Hub) -> Hub:
    """A data set of two versions, a model of two, and a competition with rules."""
    hub.kaggle("datasets/owner/rows/1", {"a.csv": b"x\n1\n"})
    hub.kaggle("datasets/owner/rows/2", ROWS)
    hub.kaggle("models/owner/bert/pytorch/small/1", {"config.json": b"[]"})
    hub.kaggle("models/owner/bert/pytorch/small/2", {"config.json": b"{}", "v/vocab.txt": b"a\n"})
    folder = hub.kaggle("competitions/ships/data", ROWS)
    (folder.parent / "access.json").write_text(
        json.dumps({"tokens": [f"me:{KEY.password}", "KGAT_t"]})
    )
    return hub


THEIRS = """
from kaggle.api.kaggle_api_extended import KaggleApi
api = KaggleApi()
api.authenticate()
api.{call}
"""


@pytest.mark.parametrize(
    ("handle", "call"),
    [
        ("kaggle://datasets/owner/rows", "dataset_download_files('owner/rows', '{}', unzip=True)"),
        (
            "kaggle://datasets/owner/rows@1",
            "dataset_download_files('owner/rows/1', '{}', unzip=True)",
        ),
        (
            "kaggle://models/owner/bert/pyTorch/small",
            "model_instance_version_download('owner/bert/pyTorch/small/2', '{}', untar=True)",
        ),
        ("kaggle://competitions/ships", "competition_download_files('ships', '{}')"),
    ],
)
def test_it_brings_what_their_client_brings(
    handle: str,
    call: str,
    kaggle: Hub,
    person: Person,
    their_client: Callable[..., None],
    tmp_path: Path,
) -> None:
    person.credential = KEY
    fetched = person.fetch(handle)
    theirs = tmp_path / "theirs"
    code = THEIRS.format(call=call.format(theirs))
    their_client(code, KAGGLE_USERNAME=KEY.login, KAGGLE_KEY=KEY.password)
    for packed in theirs.glob("*.zip"):  # a competition's stays as it came
        zipfile.ZipFile(packed).extractall(theirs)
        packed.unlink()
    files = (path for path in theirs.rglob("*") if path.is_file())
    assert person.read(fetched) == {
        path.relative_to(theirs).as_posix(): path.read_bytes() for path in files
    }


def test_the_current_version_is_resolved_recorded_and_followed(kaggle: Hub, person: Person) -> None:
    first = person.fetch("kaggle://datasets/owner/rows")
    assert (first.revision, first.manifest.origin["revision"]) == ("2", "2")
    kaggle.kaggle("datasets/owner/rows/3", {"new.csv": b"x\n3\n"})
    asked = len(kaggle.log())
    assert person.fetch("kaggle://datasets/owner/rows", offline=True).revision == "2"
    assert person.fetch("kaggle://datasets/owner/rows@2").cached
    assert len(kaggle.log()) == asked
    assert person.fetch("kaggle://datasets/owner/rows").revision == "3"
    model = person.fetch("kaggle://models/owner/bert/pytorch/small@1")
    assert person.read(model) == {"config.json": b"[]"}


def test_a_competition_is_pinned_by_the_list_of_its_files(kaggle: Hub, person: Person) -> None:
    person.credential = Credential(password="KGAT_t")
    kaggle.knobs(page=20)
    first = person.fetch("kaggle://competitions/ships")
    assert len(kaggle.asked("ListDataFiles")) == 6  # three pages to pin, three to fetch
    assert re.fullmatch("list-sha256:[0-9a-f]{64}", first.revision)
    assert any("no versions" in line for line in person.said)
    assert person.fetch("kaggle://competitions/ships").cached
    kaggle.kaggle("competitions/ships/data", {"sub/part-44.csv": b"x,y\n44,2\n"})
    second = person.fetch("kaggle://competitions/ships")
    assert second.revision != first.revision
    assert person.read(second)["sub/part-44.csv"] == b"x,y\n44,2\n"


def test_who_may_not_is_told_what_to_do(kaggle: Hub, person: Person) -> None:
    with pytest.raises(SourceError, match=r"who asks(.|\n)*tracklayer_kaggle(.|\n)*KAGGLE_KEY"):
        person.fetch("kaggle://competitions/ships")
    person.credential = Credential("me", "wrong")
    with pytest.raises(
        SourceError, match=r"may not be read(.|\n)*kaggle\.com/competitions/ships/rules"
    ):
        person.fetch("kaggle://competitions/ships")
    person.credential = KEY
    for handle in ("datasets/owner/none", "datasets/owner/rows@9", "competitions/none"):
        with pytest.raises(SourceError, match="does not exist"):
            person.fetch(f"kaggle://{handle}")
    with pytest.raises(SourceError, match=r"no framework 'paper'(.|\n)*pytorch"):
        person.fetch("kaggle://models/owner/bert/paper/small")
    with pytest.raises(SourceError, match="does not exist"):
        person.fetch("kaggle://models/owner/bert/jax/small@1")


def test_an_archive_is_unpacked_safely(kaggle: Hub, person: Person, tmp_path: Path) -> None:
    folder = kaggle.kaggle("datasets/owner/evil/1", {"a.csv": b"x\n1\n"})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as evil:
        evil.writestr("a.csv", "x\n1\n")
        evil.writestr("../../out.csv", "x\n2\n")
    folder.with_name("1.zip").write_bytes(packed.getvalue())
    with pytest.raises(SourceError, match=r"out\.csv"):
        person.fetch("kaggle://datasets/owner/evil")
    assert not list(tmp_path.rglob("out.csv"))
    with pytest.raises(SourceError):
        person.fetch("kaggle://datasets/owner/evil", offline=True)


def test_a_busy_hub_is_asked_again(kaggle: Hub, person: Person) -> None:
    kaggle.knobs(limited=2, retry_after=0)
    assert not person.fetch("kaggle://datasets/owner/rows").cached
    kaggle.knobs(unavailable=2)
    assert not person.fetch("kaggle://datasets/owner/rows@1").cached


def test_a_key_goes_to_kaggle_alone(
    kaggle: Hub, person: Person, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    person.credential = KEY
    fetched = person.fetch("kaggle://competitions/ships")
    person.credential = Credential("me", wrong := secrets.token_hex(16))
    with pytest.raises(SourceError) as caught:
        person.fetch("kaggle://competitions/ships")
    far = [each["headers"] for each in kaggle.log() if "/kaggle/cache/" in each["path"]]
    assert far
    assert not any("Authorization" in headers for headers in far)
    seen = [str(caught.value), fetched.manifest.model_dump_json(), *person.said, caplog.text]
    seen += person.command_lines()
    seen += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in seen if re.search(f"{KEY.password}|{wrong}|bWU6|Signature=", text)]


ALONE = """
import pathlib, sys
from tracklayer.sources import fetch
from tracklayer.store import Store
here = pathlib.Path()
handle = "kaggle://models/owner/bert/pytorch/small"
fetched = fetch(handle, project=here, store=Store(here / "store"))
assert len(fetched.manifest.files) == 2
assert "kaggle" not in sys.modules and "huggingface_hub" not in sys.modules
"""


def test_nothing_of_their_client_is_run_or_written(kaggle: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    key = {"username": "somebody", "key": "kg_of_somebody"}
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps(key))
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not any("Authorization" in each["headers"] for each in kaggle.log())
    assert {path.name for path in home.rglob("*")} == {".kaggle", "kaggle.json"}
