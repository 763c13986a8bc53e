"""Handles of s3 sources: what is accepted, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Context, Credential
from tracklayer.sources.s3 import S3Source
from tracklayer.sources.s3_client import connect

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("handle", "source"),
    [
        ("s3://bucket", S3Source("bucket")),
        ("s3://bucket/", S3Source("bucket")),
        ("s3://bucket/a/b/", S3Source("bucket", "a/b/")),
        ("s3://bucket/a%20b%23%3F%25+é", S3Source("bucket", "a b#?%+é")),
        (
            "s3://bucket/a?endpoint=https://minio.lab:9000&region=eu-west-1",
            S3Source("bucket", "a", "https://minio.lab:9000", "eu-west-1"),
        ),
        ("s3://bucket/a?version=x.Y_z", S3Source("bucket", "a", version="x.Y_z")),
        (f"s3://bucket/a/#sha256={HEX.upper()}", S3Source("bucket", "a/", digest=HEX)),
        (
            "s3://bucket/a?endpoint=http://127.0.0.1:9000",
            S3Source("bucket", "a", "http://127.0.0.1:9000"),
        ),
    ],
)
def test_good(handle: str, source: S3Source) -> None:
    assert S3Source.parse(handle) == source


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        ("s3:bucket/a", "s3://bucket/folder/"),
        ("s3:///a", "not the name of a bucket"),
        ("s3://b/a", "not the name of a bucket"),
        ("s3://buck et/a", "not the name of a bucket"),
        ("s3://AKID:hunter2@bucket/a", "user or a password"),
        ("s3://bucket/a?endpont=https://x", "not known: endpont"),
        ("s3://bucket/a?region=", "empty option"),
        ("s3://bucket/a%00b", "zero byte"),
        ("s3://bucket/a#md5=12", "not #sha256="),
        ("s3://bucket/a#", "not #sha256="),
        ("s3://bucket/a/?version=1", "only one object"),
        ("s3://bucket/a?version=null", "what the next upload replaces"),
        (f"s3://bucket/a?version=1#sha256={HEX}", "no other pin"),
        ("s3://bucket/a?endpoint=http://minio.lab:9000", "must begin with https"),
        ("s3://bucket/a?endpoint=file:///etc", "must begin with https"),
        ("s3://bucket/a?endpoint=https://u:hunter2@minio.lab", "user or a password"),
    ],
)
def test_bad(handle: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        S3Source.parse(handle)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_pins_a_handle() -> None:
    assert S3Source("bucket", "a").pinned is None
    pinned = S3Source("bucket", "a", digest=HEX)
    context = Context(Path(), Path())
    assert pinned.pinned == pinned.pin(context) == f"sha256:{HEX}"
    assert S3Source("bucket", "a", version="7").pinned == "version:7"


def test_keys_tell_contents_apart() -> None:
    sources = [
        S3Source("bucket", "a"),
        S3Source("bucket", "a/"),
        S3Source("bucket2", "a"),
        S3Source("bucket", "a", endpoint="https://minio.lab"),
        S3Source("bucket", "a?endpoint=https://minio.lab"),
    ]
    keys = {source.key(f"sha256:{HEX}") for source in sources}
    assert len(keys) == len(sources)


def test_an_endpoint_without_tls_is_refused_wherever_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SourceError, match="must begin with https"):
        connect(Credential("a", "b", {"endpoint_url": "http://minio.lab"}), None, None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.lab")
    with pytest.raises(SourceError, match="must begin with https"):
        connect(Credential("a", "b"), None, None)


def test_an_address_is_that_of_the_store_and_its_region() -> None:
    named = {"Bucket": "bucket", "Key": "a b/é"}
    own = connect(Credential("a", "b"), "https://minio.lab:9000", None)
    url = own.generate_presigned_url("get_object", Params=named)
    assert url.startswith("https://minio.lab:9000/bucket/a%20b/%C3%A9?X-Amz-Algorithm=AWS4-HMAC")
    aws = connect(Credential("a", "b", {"aws_session_token": "t"}), None, "eu-west-1")
    url = aws.generate_presigned_url("get_object", Params=named)
    assert url.startswith("https://s3.eu-west-1.amazonaws.com/bucket/")
    assert "X-Amz-Security-Token=t" in url
