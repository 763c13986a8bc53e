"""s3 sources against moto's server, and against one that answers as AWS does when it refuses."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from tracklayer.errors import SourceError
from tracklayer.sources import Context, Credential, Fetched, Remote, fetch, parse
from tracklayer.store import Store

KEYS = Credential("AKIDEXAMPLE", "s3cret-key")
ANY = frozenset({"unknown"})

pytestmark = pytest.mark.usefixtures("nobodys_keys")


class Bucket:
    """A bucket of the store."""

    def __init__(self, endpoint: str, name: str) -> None:
        import boto3

        self.endpoint, self.name = endpoint, name
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS.login,
            aws_secret_access_key=KEYS.password,
        )
        self.client.create_bucket(Bucket=name)

    def put(self, **objects: bytes) -> None:
        self.put_all(objects)

    def put_all(self, objects: dict[str, bytes]) -> None:
        for key, content in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def handle(self, key: str, more: str = "") -> str:
        return f"s3://{self.name}/{key}?endpoint={self.endpoint}{more}"


@pytest.fixture
def bucket(moto: str, tmp_path: Path) -> Bucket:
    return Bucket(moto, f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}")


Get = Callable[..., Fetched]


@pytest.fixture
def get(store: Store, tmp_path: Path) -> Get:
    def get(handle: str, credential: Credential | None = KEYS) -> Fetched:
        return fetch(
            handle,
            project=tmp_path,
            store=store,
            credential=lambda _kind: credential,
            allow=frozenset({"unknown"}),
        )

    return get


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "scratch").mkdir()
    return Context(tmp_path, tmp_path / "scratch", lambda _line: None, lambda _kind: KEYS)


def content(store: Store, got: Fetched, into: Path) -> dict[str, bytes]:
    store.materialise(got.manifest.digest, into)
    return {p.relative_to(into).as_posix(): p.read_bytes() for p in into.rglob("*") if p.is_file()}


def test_a_folder(bucket: Bucket, get: Get, store: Store, tmp_path: Path) -> None:
    """Not what only begins with the same letters; odd characters in keys; one in parts."""
    files = {
        "a.csv": b"1,2\n",
        "deep/er/b.csv": b"",
        "sp ace+plus%25&=#?é\u4e16.txt": b"odd",
        "big.bin": os.urandom(6_000_000),
    }
    bucket.put_all({f"data/{name}": body for name, body in files.items()})
    bucket.put_all({"data/": b"", "data/deep/": b"", "data2/c.csv": b"no", "dat": b"no"})
    first = get(bucket.handle("data/"))
    assert content(store, first, tmp_path / "out") == files
    assert first.revision.startswith("sha256:")
    again = get(bucket.handle("data"))
    assert (again.revision, again.manifest.files) == (first.revision, first.manifest.files)
    assert get(bucket.handle("data/")).cached
    deeper = get(bucket.handle("data/deep"))
    assert [file.path for file in deeper.manifest.files] == ["er/b.csv"]
    assert store.verify() == []


def test_a_whole_bucket(bucket: Bucket, get: Get) -> None:
    bucket.put_all({"a.csv": b"1\n", "b/c.csv": b"2\n"})
    got = get(bucket.handle(""))
    assert [file.path for file in got.manifest.files] == ["a.csv", "b/c.csv"]


def test_one_object_beside_a_folder_of_its_name(bucket: Bucket, get: Get) -> None:
    bucket.put_all({"d/x.csv": b"1\n", "d/x.csv/y.csv": b"2\n"})
    assert [file.path for file in get(bucket.handle("d/x.csv")).manifest.files] == ["x.csv"]
    assert [file.path for file in get(bucket.handle("d/x.csv/")).manifest.files] == ["y.csv"]


def test_a_listing_of_two_pages(bucket: Bucket, context: Context) -> None:
    """A change on the second page is another revision."""
    server = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(1005):
        server.put_object(bucket.name, f"p/{number:04}", b"%d" % number)
    source = parse(bucket.handle("p"))
    first = source.pin(context)
    assert source.pin(context) == first
    server.put_object(bucket.name, "p/1004", b"another")
    assert source.pin(context) != first


def test_a_change_is_another_revision_and_a_pin_holds(
    bucket: Bucket, get: Get, store: Store, tmp_path: Path
) -> None:
    bucket.put_all({"d/a": b"1", "d/b": b"2"})
    first = get(bucket.handle("d"))
    pinned = bucket.handle("d", f"#{first.revision.replace(':', '=')}")
    bucket.put_all({"d/a": b"3"})
    second = get(bucket.handle("d"))
    assert (second.revision != first.revision, second.cached) == (True, False)
    assert get(pinned).manifest.files == first.manifest.files  # from the store
    elsewhere = Store(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=rf"not hold {first.revision} any more"):
        fetch(
            pinned,
            project=tmp_path,
            store=elsewhere,
            credential=lambda _kind: KEYS,
            allow=ANY,
        )
    bucket.put_all({"d/a": b"1"})
    assert (
        fetch(
            pinned, project=tmp_path, store=elsewhere, credential=lambda _kind: KEYS, allow=ANY
        ).manifest.files
        == first.manifest.files
    )


def test_a_version_of_an_object(bucket: Bucket, get: Get, store: Store, tmp_path: Path) -> None:
    versioning = {"Status": "Enabled"}
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration=versioning)
    old = bucket.client.put_object(Bucket=bucket.name, Key="m", Body=b"old")["VersionId"]
    bucket.put(m=b"newer")
    got = get(bucket.handle("m", f"&version={old}"))
    assert got.revision == f"version:{old}"
    assert content(store, got, tmp_path / "out") == {"m": b"old"}
    with pytest.raises(SourceError, match=r"there is no such|refuses the request"):
        get(bucket.handle("m", "&version=nonsense"))


def test_an_object_that_changes_between_listing_and_download(
    bucket: Bucket, context: Context, store: Store, tmp_path: Path
) -> None:
    bucket.put_all({"d/a": b"111", "d/b": os.urandom(100)})
    source = parse(bucket.handle("d"))
    [one, _] = source.files(source.pin(context), context)
    assert isinstance(one, Remote)
    bucket.put_all({"d/a": b"222"})

    import httpx

    assert callable(one.url)
    assert httpx.get(one.url(), headers=dict(one.headers)).status_code == 412
    with pytest.raises(SourceError, match="changed"):
        list(source.files(source.pin(context), _Changing(bucket, context)))


class _Changing(Context):
    """Somebody overwrites an object when the listing is done."""

    def __init__(self, bucket: Bucket, context: Context) -> None:
        def report(_line: str) -> None:
            bucket.put_all({"d/b": os.urandom(100)})

        super().__init__(context.project, context.scratch, report, context.credential)


def test_checksums_are_those_that_the_store_has(bucket: Bucket, context: Context) -> None:
    put = bucket.client.put_object
    bucket.put(plain=b"plain")
    put(Bucket=bucket.name, Key="strong", Body=b"strong", ChecksumAlgorithm="SHA256")
    # The ETag of an object that a key of KMS encrypts looks like an MD5, and is none.
    put(Bucket=bucket.name, Key="kms", Body=b"kms", ServerSideEncryption="aws:kms")
    upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key="parts")["UploadId"]
    named = {"Bucket": bucket.name, "Key": "parts", "UploadId": upload}
    part = bucket.client.upload_part(**named, PartNumber=1, Body=b"parts")["ETag"]
    bucket.client.complete_multipart_upload(
        **named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    source = parse(bucket.handle(""))
    found = {file.path: file for file in source.files(source.pin(context), context)}
    assert {path: file.digest for path, file in found.items() if isinstance(file, Remote)} == {
        "plain": f"md5:{hashlib.md5(b'plain').hexdigest()}",
        "strong": f"sha256:{hashlib.sha256(b'strong').hexdigest()}",
        "kms": None,
        "parts": None,
    }


@pytest.mark.parametrize("key", ["d/../../x", "d/a//b", "d/./x", "d//x"])
def test_keys_that_cannot_be_files(bucket: Bucket, get: Get, store: Store, key: str) -> None:
    server = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    server.put_object(bucket.name, key, b"x")
    server.put_object(bucket.name, "d/fine", b"x")
    with pytest.raises(SourceError, match="cannot be the path of a file"):
        get(bucket.handle("d/"))
    assert not store.root.exists() or list(store.root.rglob("objects/*/*")) == []


def test_keys_that_are_file_and_folder(bucket: Bucket, get: Get) -> None:
    bucket.put_all({"d/a": b"1", "d/a-b": b"2", "d/a/b": b"3"})
    with pytest.raises(SourceError, match="'a' is a file of the source, and a folder too"):
        get(bucket.handle("d"))


def test_where_the_keys_come_from(
    bucket: Bucket, get: Get, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The connection, with its endpoint; else the environment or a profile; else nobody's."""
    bucket.client.put_object(Bucket=bucket.name, Key="a", Body=b"1", ACL="public-read")
    extra = {"endpoint_url": bucket.endpoint, "region_name": "eu-central-1"}
    handle = f"s3://{bucket.name}/a"
    named = Credential("AKIDEXAMPLE", "x", extra)
    assert get(handle, named).revision
    context = Context(tmp_path, tmp_path, lambda _line: None, lambda _kind: named)
    # Signed for the region that the bucket is in, not for the one that somebody thought of.
    assert "%2Fus-east-1%2Fs3%2F" in _signed(parse(handle), context)
    (tmp_path / "profiles").write_text("[lab]\naws_access_key_id=A\naws_secret_access_key=B\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "profiles"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    context = Context(tmp_path, tmp_path, lambda _line: None, lambda _kind: None)
    assert "Credential=A%2F" in _signed(parse(bucket.handle("a")), context)
    monkeypatch.delenv("AWS_PROFILE")
    assert "Credential=" not in _signed(parse(bucket.handle("a")), context)
    with pytest.raises(SourceError, match=r"profile \(nope\)"):
        get(bucket.handle("a"), Credential(extra={"profile_name": "nope"}))


def _signed(source: Any, context: Context) -> str:
    [file] = source.files(source.pin(context), context)
    url: str = file.url()
    return url


def test_keys_are_seen_nowhere(
    bucket: Bucket, get: Get, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that is good for a while, which is sent with each request; whatever is logged."""
    caplog.set_level(logging.DEBUG)
    bucket.client.put_object(Bucket=bucket.name, Key="a", Body=b"1\n", ACL="public-read")
    logging.getLogger("botocore").setLevel(logging.NOTSET)  # as in a new process
    caplog.clear()
    short = Credential("AKIDEXAMPLE", "s3cret-key", {"aws_session_token": "s3cret-token"})
    got = get(bucket.handle("a"), short)
    with pytest.raises(SourceError) as caught:
        get(bucket.handle("nothing"), short)
    logged = [record for record in caplog.records if record.name != "werkzeug"]  # the server's
    assert len(logged) > 3  # the libraries did log
    seen = [str(caught.value), repr(caught.value.__context__), repr(short)]
    seen += [record.getMessage() for record in logged]
    seen.append(got.manifest.model_dump_json())
    seen += [
        path.read_bytes().decode("latin-1") for path in store.root.rglob("*") if path.is_file()
    ]
    assert [text for text in seen if "s3cret" in text] == []


class Refusing:
    """A store that answers every request alike."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - the name is the library's

            def log_message(self, *args: object) -> None:
                """The output is the test's."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AccessDenied", r"access is denied[\s\S]*s3:ListBucket"),
        (403, "InvalidAccessKeyId", "does not know the access key"),
        (403, "SignatureDoesNotMatch", "the secret key is wrong"),
        (400, "ExpiredToken", "token has expired"),
        (301, "PermanentRedirect", r"in another region[\s\S]*\?region="),
        (400, "AuthorizationHeaderMalformed", "in another region"),
        (404, "NoSuchBucket", "there is no such bucket"),
        (405, "MethodNotAllowed", "answered MethodNotAllowed: No"),
    ],
)
def test_what_the_store_refuses(status: int, code: str, says: str, get: Get) -> None:
    server = Refusing(status, code)
    try:
        with pytest.raises(SourceError, match=says) as caught:
            get(f"s3://bucket/folder/?endpoint={server.endpoint}")
        assert "s3cret" not in str(caught.value)
        assert "s3://bucket/folder/" in str(caught.value)
        with pytest.raises(SourceError):
            get(f"s3://bucket/key?endpoint={server.endpoint}")
    finally:
        server.close()


def test_nothing_there(bucket: Bucket, get: Get) -> None:
    with pytest.raises(SourceError, match=r"does not exist, or is an empty folder"):
        get(bucket.handle("nope"))
    bucket.put_all({"empty/": b""})
    with pytest.raises(SourceError, match=r"empty folder"):
        get(bucket.handle("empty/"))
    with pytest.raises(SourceError, match="there is no such bucket"):
        get(f"s3://no-such-bucket/x/?endpoint={bucket.endpoint}")


def test_nobody_listens(get: Get) -> None:
    server = Refusing(200, "")
    server.close()
    with pytest.raises(SourceError, match=r"cannot be reached[\s\S]*\?endpoint="):
        get(f"s3://bucket/folder/?endpoint={server.endpoint}")
