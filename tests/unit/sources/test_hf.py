from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from tracklayer.errors import SourceError
from tracklayer.sources import Context, parse
from tracklayer.sources.hf import HuggingFaceSource

COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


@pytest.mark.parametrize(
    ("handle", "kind", "name", "revision"),
    [
        (f"hf://org/model@{COMMIT}", "models", "org/model", COMMIT),
        ("hf://org/model", "models", "org/model", "main"),
        ("hf://gpt2@v1.0", "models", "gpt2", "v1.0"),
        ("hf://datasets/org/name@v2", "datasets", "org/name", "v2"),
        ("hf://datasets/squad", "datasets", "squad", "main"),
        ("hf://spaces/org/app@main", "spaces", "org/app", "main"),
        ("hf://org/model@refs/pr/1", "models", "org/model", "refs/pr/1"),
        ("hf://org/model@refs%2Fpr%2F1", "models", "org/model", "refs/pr/1"),
    ],
)
def test_what_a_handle_means(handle: str, kind: str, name: str, revision: str) -> None:
    source = parse(handle)
    assert source == HuggingFaceSource(kind, name, revision)
    assert source.pinned == (COMMIT if revision == COMMIT else None)


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("hf://", "not the address"),
        ("hf://org/", "not the address"),
        ("hf://datasets", "not the address"),
        ("hf://../model", "not the address"),
        ("hf://org/mo del", "not the address"),
        ("hf://user:secret@org/model", "not the address"),
        ("hf://org/model/config.json", r"include=<file>"),
        ("hf://org/model@", "revision that cannot be one"),
        ("hf://org/model@../../x", "revision that cannot be one"),
        ("hf://org/model@-x", "revision that cannot be one"),
        ("hf://org/model@main?includes=*", "include=<pattern>"),
        ("hf://org/model@main?include=", "include=<pattern>"),
    ],
)
def test_what_is_no_handle(handle: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        parse(handle)


def test_patterns_are_of_the_key_and_their_order_is_not() -> None:
    one = parse("hf://a/b@main?include=*.json&include=c%2B%2B+d/&exclude=x")
    other = parse("hf://a/b@main?exclude=x&include=c%2B%2B+d/&include=*.json")
    assert isinstance(one, HuggingFaceSource)
    assert one.include == ("*.json", "c+++d/*")
    assert one.key(COMMIT) == other.key(COMMIT)
    keys = {
        parse(f"hf://{each}").key(COMMIT)
        for each in (
            *("a/b", "a/c", "datasets/a/b", "spaces/a/b", "a/b?include=x", "a/b?exclude=x"),
            *("a/b?include=x%26include=y", "a/b?include=x&include=y"),
        )
    }
    assert len(keys) == 8


PATHS = st.text("abX/.*?[]!-", min_size=1, max_size=6)


@given(st.lists(PATHS, min_size=1, unique=True), st.lists(PATHS), st.lists(PATHS))
def test_patterns_choose_as_their_own_client_does(
    paths: list[str], include: list[str], exclude: list[str]
) -> None:
    theirs = set(
        filter_repo_objects(paths, allow_patterns=include or None, ignore_patterns=exclude or None)
    )
    given = [("include", each) for each in include] + [("exclude", each) for each in exclude]
    # No pattern of these needs quoting in a handle, except those that a handle cuts at.
    query = "&".join(f"{name}={pattern.replace('?', '%3F')}" for name, pattern in given)
    source = HuggingFaceSource.parse(f"hf://datasets/a/b?{query}")
    context = Context(Path(), Path())
    if theirs:
        assert source._choose(paths, context) == theirs
    else:
        with pytest.raises(SourceError, match="no file"):
            source._choose(paths, context)


@pytest.mark.parametrize("endpoint", ["http://example.org", "ftp://localhost", "https://a:b@c.org"])
def test_a_token_is_sent_by_tls_alone(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(SourceError) as caught:
        parse("hf://a/b").pin(Context(Path(), Path()))
    assert "a:b" not in str(caught.value)
