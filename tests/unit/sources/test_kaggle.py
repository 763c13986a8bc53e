from __future__ import annotations

from pathlib import Path

import pytest
from kagglesdk.models.types.model_enums import ModelFramework

from tracklayer.errors import SourceError
from tracklayer.sources import Context, parse
from tracklayer.sources.kaggle import KaggleSource, _framework


@pytest.mark.parametrize(
    ("handle", "source"),
    [
        ("kaggle://datasets/own-er/na_me@3", KaggleSource("datasets", ("own-er", "na_me"), 3)),
        ("kaggle://datasets/owner/name", KaggleSource("datasets", ("owner", "name"))),
        (
            "kaggle://models/google/bert/pyTorch/base-1.0@12",
            KaggleSource("models", ("google", "bert", "pyTorch", "base-1.0"), 12),
        ),
        ("kaggle://competitions/titanic", KaggleSource("competitions", ("titanic",))),
    ],
)
def test_what_a_handle_means(handle: str, source: KaggleSource) -> None:
    assert parse(handle) == source
    assert source.pinned == (str(source.version) if source.version else None)


@pytest.mark.parametrize(
    "handle",
    [
        "kaggle://",
        "kaggle://owner/name",
        "kaggle://datasets/owner",
        "kaggle://datasets/owner/name/more",
        "kaggle://datasets/owner/name@",
        "kaggle://datasets/owner/name@0",
        "kaggle://datasets/owner/name@latest",
        "kaggle://datasets/../name",
        "kaggle://datasets/owner/name?x=1",
        "kaggle://models/google/bert/pyTorch",
        "kaggle://competitions/titanic@2",
        "kaggle://kernels/owner/name",
    ],
)
def test_what_is_no_handle(handle: str) -> None:
    with pytest.raises(SourceError, match="kaggle://datasets/owner/name@3"):
        parse(handle)


def test_a_framework_is_written_as_one_likes() -> None:
    for name in ("pyTorch", "PyTorch", "pytorch", "py-torch"):
        assert _framework(name) == "MODEL_FRAMEWORK_PY_TORCH"
    assert _framework("tensorFlow2") == "MODEL_FRAMEWORK_TENSOR_FLOW_2"
    names = [each.name for each in ModelFramework]
    assert [_framework(name.removeprefix("MODEL_FRAMEWORK_")) for name in names] == names
    with pytest.raises(SourceError, match="pytorch"):
        _framework("paper")


def test_a_key_is_sent_by_tls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", "http://example.org")
    with pytest.raises(SourceError, match="must begin with https://"):
        parse("kaggle://datasets/owner/name").pin(Context(Path(), Path()))
