from __future__ import annotations

import pytest

from tracklayer.cli.options import connect
from tracklayer.errors import PlatformError

PATH = "GET /api/v2/dags/~/dagRuns"


@pytest.fixture(autouse=True)
def empty(server, monkeypatch):
    server.answers[PATH] = (200, {"dag_runs": []})
    monkeypatch.delenv("TRACKLAYER_TOKEN", raising=False)
    monkeypatch.delenv("TRACKLAYER_TOKEN_FILE", raising=False)


def test_a_token_from_the_environment_a_file_or_stdin(call, server, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("of-file\n")
    assert call("runs", "--url", server.url, "--token-file", str(file))[0] == 0
    assert call("runs", "--url", server.url, "--token-file", "-", stdin=" of-stdin\n")[0] == 0
    monkeypatch.setenv("TRACKLAYER_TOKEN", "of-env")
    monkeypatch.setenv("TRACKLAYER_URL", server.url)
    assert call("runs")[0] == 0
    assert [asked.token for asked in server.asked] == ["of-file", "of-stdin", "of-env"]


def test_a_token_is_never_an_argument(call, server):
    code, _, err = call("runs", "--url", server.url, "--token", "secret")
    assert code == 64
    assert "secret" not in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe", "cannot be read: it is no text"),
        (b"two secret\nlines", "What was given as a token is none"),
        (b"\n", "A token is needed"),
    ],
)
def test_what_is_no_token(tmp_path, content, message):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PlatformError, match=message) as caught:
        connect("http://127.0.0.1:1", str(file))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://platform.example", True),
        ("https://platform.example", False),
        ("http://127.0.0.1:1", False),
    ],
)
def test_a_token_in_the_clear_is_warned_of(monkeypatch, capsys, url, warned):
    monkeypatch.setenv("TRACKLAYER_TOKEN", "of-env")
    connect(url, None)
    said = capsys.readouterr().err
    assert ("is not encrypted" in said) == warned
    assert "of-env" not in said


def test_what_is_no_address():
    with pytest.raises(PlatformError, match="'localhost:8080' is no address"):
        connect("localhost:8080", None)
