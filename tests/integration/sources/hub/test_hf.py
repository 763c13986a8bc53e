"""Fetching from a hub that speaks Hugging Face's protocol, beside Hugging Face's own client."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Credential, fetch

if TYPE_CHECKING:
    from tests.conftest import Hub
    from tests.integration.sources.hub.conftest import Person

MINILM = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
SNAPSHOT = (
    "from huggingface_hub import snapshot_download as s; s({!r}, repo_type={!r}, local_dir={!r})"
)


def tree(folder: Path) -> dict[str, bytes]:
    """What their client brought, without its own notes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith(".cache/")}


@pytest.mark.parametrize(
    ("handle", "name", "kind"),
    [
        (
            f"hf://sentence-transformers/all-MiniLM-L6-v2@{MINILM}",
            "sentence-transformers/all-MiniLM-L6-v2",
            "model",
        ),
        ("hf://datasets/lab/many", "lab/many", "dataset"),
        ("hf://spaces/lab/shown", "lab/shown", "space"),
    ],
)
def test_it_brings_what_their_client_brings(
    handle: str,
    name: str,
    kind: str,
    hub: Hub,
    person: Person,
    their_client: Callable[..., None],
    tmp_path: Path,
) -> None:
    hub.knobs(page=20)
    hub.push("spaces/lab/shown", {"README.md": b"# A space\n", "app.py": b"import gradio\n"})
    with_code = frozenset({"remote-code"} if kind == "space" else ())
    fetched = person.fetch(handle, allow=with_code)
    if kind == "dataset":
        assert len(hub.asked("/tree/")) == 3
    their_client(SNAPSHOT.format(name, kind, str(tmp_path / "theirs")))
    assert person.read(fetched) == tree(tmp_path / "theirs")
    if kind == "model":
        assert (fetched.revision, len(fetched.manifest.files)) == (MINILM, 13)
        assert fetched.manifest.size > 90_000_000


def test_the_second_fetch_asks_nobody(hub: Hub, person: Person) -> None:
    first = person.fetch("hf://datasets/lab/many")
    asked = len(hub.log())
    pinned = person.fetch(f"hf://datasets/lab/many@{first.revision}")
    offline = person.fetch("hf://datasets/lab/many", offline=True)
    assert [first.cached, pinned.cached, offline.cached] == [False, True, True]
    assert first.manifest.files == pinned.manifest.files == offline.manifest.files
    assert len(hub.log()) == asked


def test_a_moving_ref_is_resolved_recorded_and_followed(hub: Hub, person: Person) -> None:
    old = hub.push("models/lab/moving", {"config.json": b'{"v": 1}'})
    first = person.fetch("hf://lab/moving")
    assert (first.revision, first.manifest.origin["revision"]) == (old, old)
    assert any(old in line for line in person.said)
    new = hub.push("models/lab/moving", {"config.json": b'{"v": 2}'})
    assert person.fetch("hf://lab/moving", offline=True).revision == old
    second = person.fetch("hf://lab/moving@main")
    assert (second.revision, person.read(second)) == (new, {"config.json": b'{"v": 2}'})
    assert person.read(person.fetch(f"hf://lab/moving@{old}")) == {"config.json": b'{"v": 1}'}


@pytest.mark.parametrize("written", ["refs/pr/1", "refs%2Fpr%2F1"])
def test_a_ref_with_slashes(written: str, hub: Hub, person: Person) -> None:
    hub.push("spaces/lab/app", {"app.json": b"{}"})
    commit = hub.push("spaces/lab/app", {"app.json": b"[]"}, ref="refs/pr/1")
    fetched = person.fetch(f"hf://spaces/lab/app@{written}")
    assert (fetched.revision, person.read(fetched)) == (commit, {"app.json": b"[]"})


def test_a_repository_that_was_renamed(hub: Hub, person: Person) -> None:
    folder = hub.root / "huggingface" / "models" / "twins"
    folder.mkdir(exist_ok=True)
    (folder / "moved").write_text("lab/twins")
    fetched = person.fetch("hf://twins")
    assert person.read(fetched) == person.read(person.fetch("hf://lab/twins"))
    (folder / "moved").write_text(f"{hub.cdn}/x?Signature=1")
    with pytest.raises(SourceError, match=rf"leads to {hub.cdn}/x\n(.|\n)*HF_ENDPOINT"):
        person.fetch("hf://twins")
    assert not [each for each in hub.log() if each["path"].startswith("/x")]


def test_patterns(hub: Hub, person: Person) -> None:
    minilm = f"hf://sentence-transformers/all-MiniLM-L6-v2@{MINILM}"
    fetched = person.fetch(f"{minilm}?include=*.json&exclude=1_Pooling/&exclude=data_*")
    names = [file.path for file in fetched.manifest.files]
    assert names == [
        *("config.json", "config_sentence_transformers.json", "modules.json"),
        *("sentence_bert_config.json", "special_tokens_map.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    with pytest.raises(SourceError, match=r"no file of .* chosen(.|\n)*1_Pooling/config\.json"):
        person.fetch(f"{minilm}?include=*.onnx")


def test_safetensors_are_preferred_to_their_twins(hub: Hub, person: Person) -> None:
    fetched = person.fetch("hf://lab/twins")
    assert [file.path for file in fetched.manifest.files] == ["config.json", "model.safetensors"]
    line = next(line for line in person.said if "safetensors" in line)
    assert all(name in line for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"))
    asked = person.fetch("hf://lab/twins?include=*.bin", allow=frozenset({"pickle"}))
    assert pickle.loads(person.read(asked)["pytorch_model.bin"]) == {"w": [0.1, 0.2, 0.3]}


def test_a_gated_model_needs_a_token_that_was_accepted(hub: Hub, person: Person) -> None:
    for token, message in (
        (None, rf"gated: without a token(.|\n)*{hub.url}/lab/gated(.|\n)*tracklayer_huggingface"),
        ("hf_of_another", rf"gated: the token that is set(.|\n)*{hub.url}/lab/gated"),
    ):
        person.credential = Credential(password=token) if token else None
        with pytest.raises(SourceError, match=message):
            person.fetch("hf://lab/gated")
    person.credential = Credential(password="hf_of_a_test")
    assert len(person.fetch("hf://lab/gated").manifest.files) == 2


def test_whoever_has_the_token_is_asked_once(hub: Hub, person: Person, tmp_path: Path) -> None:
    asked: list[str] = []

    def airflow(kind: str) -> Credential:
        asked.append(kind)
        return Credential(password="hf_of_a_test")

    fetch("hf://lab/gated", project=tmp_path, store=person.store, credential=airflow)
    assert asked == ["huggingface"]


def test_a_private_model_looks_as_if_it_did_not_exist(hub: Hub, person: Person) -> None:
    hub.push("models/lab/private", {"config.json": b"{}"})
    access = hub.root / "huggingface" / "models" / "lab" / "private" / "access.json"
    access.write_text(json.dumps({"private": True, "tokens": ["hf_of_a_test"]}))
    with pytest.raises(SourceError, match=r"does not exist at .* or is private"):
        person.fetch("hf://lab/private")
    person.credential = Credential(password="hf_of_another")
    with pytest.raises(SourceError, match="the token that is set may not read it"):
        person.fetch("hf://lab/private")
    person.credential = Credential(password="hf_of_a_test")
    assert person.read(person.fetch("hf://lab/private")) == {"config.json": b"{}"}


def test_what_is_not_there(hub: Hub, person: Person) -> None:
    hub.push("models/lab/going", {"config.json": b"{}"}, ref="v1")
    person.fetch("hf://lab/going@v1")
    refs = hub.root / "huggingface" / "models" / "lab" / "going" / "refs.json"
    refs.write_text("{}")
    with pytest.raises(SourceError, match="no revision v1"):
        person.fetch("hf://lab/going@v1")
    assert person.fetch("hf://lab/going@v1", offline=True).cached
    with pytest.raises(SourceError, match=f"no revision {'0' * 40}"):
        person.fetch(f"hf://lab/going@{'0' * 40}")
    shutil.rmtree(refs.parent)
    with pytest.raises(SourceError, match="hf://lab/going does not exist"):
        person.fetch("hf://lab/going@v1")
    with pytest.raises(SourceError, match="does not exist"):
        person.fetch("hf://datasets/lab/twins")
    with pytest.raises(SourceError, match=r"not in the store|never"):
        person.fetch("hf://lab/never", offline=True)


@pytest.mark.parametrize("wrong", ["all.csv.gz", "part-007.csv"])
def test_wrong_bytes_are_refused(wrong: str, hub: Hub, person: Person) -> None:
    hub.knobs(wrong=wrong)
    with pytest.raises(SourceError, match=f"{wrong}(.|\n)*not what was pinned"):
        person.fetch("hf://datasets/lab/many")
    with pytest.raises(SourceError):
        person.fetch("hf://datasets/lab/many", offline=True)
    hub.knobs(wrong="")
    assert len(person.fetch("hf://datasets/lab/many").manifest.files) == 52


def test_a_busy_hub_is_asked_again(hub: Hub, person: Person) -> None:
    hub.knobs(unavailable=10, page=20)
    assert len(person.fetch("hf://datasets/lab/many").manifest.files) == 52
    statuses = [each["status"] for each in hub.log()]
    assert statuses.count(503) >= 5
    hub.knobs(unavailable=0, limited=1, retry_after=1)
    assert not person.fetch("hf://lab/twins").cached
    assert any("429" in line and "again in 1.0 s" in line for line in person.said)


def test_a_hub_that_wants_to_be_left_alone_is(hub: Hub, person: Person) -> None:
    hub.knobs(limited=1, retry_after=86400)
    with pytest.raises(SourceError, match="429, to be asked again in 86400 s"):
        person.fetch("hf://lab/twins")


def test_another_server_than_a_hub(
    hub: Hub, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/_stats?")
    with pytest.raises(SourceError, match="does not speak the hub's protocol"):
        person.fetch("hf://lab/twins")
    monkeypatch.setenv("HF_ENDPOINT", hub.cdn)
    with pytest.raises(SourceError, match="hf://lab/twins is closed"):
        person.fetch("hf://lab/twins")


def test_a_token_goes_to_the_hub_alone(
    hub: Hub, person: Person, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = (f"hf_{secrets.token_hex(16)}" for _ in range(2))
    hub.push("models/lab/ours", {"config.json": b"{}", "a.csv.gz": gzip.compress(b"x,y\n1,2\n")})
    access = {"gated": True, "tokens": [good]}
    (hub.root / "huggingface/models/lab/ours/access.json").write_text(json.dumps(access))
    person.credential = Credential(password=good)
    fetched = person.fetch("hf://lab/ours")
    person.credential = Credential(password=bad)
    with pytest.raises(SourceError) as caught:
        person.fetch("hf://lab/ours@main?include=*.json")
    asked = [each["headers"] for each in hub.log()]
    far = [headers for headers in asked if f"http://{headers['Host']}" == hub.cdn]
    near = [headers for headers in asked if f"http://{headers['Host']}" == hub.url]
    assert far
    assert not any("Authorization" in headers for headers in far)
    assert all("Authorization" in headers for headers in near)
    seen = [str(caught.value), repr(caught.value.__context__), fetched.manifest.model_dump_json()]
    seen += [*person.said, caplog.text, repr(person.credential)]
    seen += person.command_lines()
    seen += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in seen if re.search(f"{good}|{bad}|Signature=", text)]


def test_nothing_of_their_library_is_used_or_written(
    hub: Hub, person: Person, tmp_path: Path
) -> None:
    for place in (tmp_path / "hf-home", tmp_path / "home" / ".cache" / "huggingface"):
        place.mkdir(parents=True)
        (place / "token").write_text("hf_of_somebody")
    person.fetch("hf://lab/twins")
    assert not any("Authorization" in each["headers"] for each in hub.log())
    written = [path for place in ("hf-home", "home") for path in (tmp_path / place).rglob("*")]
    assert {path.name for path in written} == {".cache", "huggingface", "token"}
