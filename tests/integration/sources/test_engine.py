"""The engine against a real server that does everything wrong that a server can do."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tracklayer.errors import SourceError
from tracklayer.sources import Remote
from tracklayer.store import Draft

CHUNK = Draft.CHUNK
MIB = 1 << 20
SMALL = os.urandom(300_000)
LARGE = os.urandom(9 * MIB + 12_345)

Promised = Callable[..., Remote]


def ranges(server: Any) -> list[str]:
    return [asked.headers.get("range", "all") for asked in server.requests]


@pytest.mark.parametrize("kind", ["sha256", "git-sha1", "md5", None])
@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE], ids=["empty", "x", "small", "large"])
def test_every_size_and_digest(
    hostile_server: Any, engine: Any, promised: Promised, content: bytes, kind: str | None
) -> None:
    hostile_server.files["/f"] = content
    remote = promised("a/f.bin", hostile_server.url("/f"), content, kind)
    assert engine.fetch(remote) == {"a/f.bin": content}
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert engine.blobs["a/f.bin"].digest == digest
    if kind != "git-sha1":  # that digest begins with the size
        assert engine.fetch(replace(remote, size=None)) == {"a/f.bin": content}
    assert all(a.headers["accept-encoding"] == "identity" for a in hostile_server.requests)
    assert hostile_server.served <= 2 * len(content)


def test_many_files_over_few_connections(
    hostile_server: Any, engine: Any, promised: Promised
) -> None:
    hostile_server.files = {f"/{number}": os.urandom(number * 40) for number in range(200)}
    peers: set[object] = set()
    lock = threading.Lock()

    def behave(exchange: Any, _number: int) -> None:
        with lock:
            peers.add(exchange.handler.client_address)
        exchange.good()

    hostile_server.behaviour = behave
    files = hostile_server.files.items()
    found = engine.fetch(*(promised(name, hostile_server.url(name), data) for name, data in files))
    assert found == hostile_server.files
    assert len(hostile_server.requests) == 200
    assert 2 <= len(peers) <= 16


def test_a_large_file_comes_in_parts(hostile_server: Any, engine: Any, promised: Promised) -> None:
    content = os.urandom(40 * MIB + 5)
    hostile_server.files["/f"] = content
    at_once, most = itertools.count(), [0]
    running = [0]
    lock = threading.Lock()

    def behave(exchange: Any, _number: int) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        exchange.good()
        with lock:
            running[0] -= 1

    hostile_server.behaviour = behave
    assert next(at_once) == 0
    assert engine.fetch(promised("f", hostile_server.url("/f"), content)) == {"f": content}
    spans = sorted(
        tuple(map(int, r.removeprefix("bytes=").split("-"))) for r in ranges(hostile_server)
    )
    assert spans[0][0] == 0
    assert spans[-1][1] == len(content) - 1
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(spans))
    assert all(first % CHUNK == 0 for first, _ in spans)
    assert 4 <= most[0] <= 8
    later = [a.headers.get("if-range") for a in hostile_server.requests]
    assert later.count('"one"') >= len(spans) - 1


def test_truncated_bodies_are_continued(
    hostile_server: Any, engine: Any, promised: Promised
) -> None:
    """The first answer from each place breaks off in the middle, and nothing is fetched twice but
    the chunk in which it broke."""
    content = os.urandom(24 * MIB)
    hostile_server.files["/f"] = content
    begun: set[str] = set()

    def behave(exchange: Any, _number: int) -> None:
        place = exchange.headers["range"].partition("-")[0]
        exchange.good() if place in begun else exchange.cut()
        begun.add(place)

    hostile_server.behaviour = behave
    assert engine.fetch(promised("f", hostile_server.url("/f"), content)) == {"f": content}
    broken = sum("broke off" in line or "ended early" in line for line in engine.said)
    assert broken >= 2
    assert hostile_server.served <= len(content) + len(hostile_server.requests) * MIB


def test_a_small_truncated_file_is_asked_for_again(
    hostile_server: Any, engine: Any, promised: Promised
) -> None:
    hostile_server.files["/f"] = SMALL
    hostile_server.behaviour = lambda exchange, number: (
        exchange.cut() if number < 3 else exchange.good()
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), SMALL)) == {"f": SMALL}
    assert len(hostile_server.requests) == 3


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["sha256", "git-sha1", "md5"])
def test_wrong_bytes_of_the_right_length(
    hostile_server: Any, engine: Any, promised: Promised, content: bytes, kind: str
) -> None:
    wrong = bytearray(content)
    wrong[-7] ^= 1
    hostile_server.files["/f"] = bytes(wrong)
    with pytest.raises(SourceError, match="is not what was pinned") as caught:
        engine.fetch(promised("f", hostile_server.url("/f") + "?token=hunter2", content, kind))
    assert f"{kind}:" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert any("from the start" in line for line in engine.said)
    assert hostile_server.served == 2 * len(content)
    hostile_server.files["/f"] = content
    remote = promised("f", hostile_server.url("/f"), content, kind)
    assert engine.fetch(remote) == {"f": content}


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_wrong_bytes_once(
    hostile_server: Any, engine: Any, promised: Promised, content: bytes
) -> None:
    wrong = bytearray(content)
    wrong[7] ^= 1
    hostile_server.files["/f"] = content
    hostile_server.behaviour = lambda exchange, number: exchange.good(
        bytes(wrong) if number == 1 else content
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), content)) == {"f": content}


def test_another_size_than_promised(hostile_server: Any, engine: Any, promised: Promised) -> None:
    for content in (SMALL, LARGE):
        hostile_server.files["/f"] = content + b"more"
        with pytest.raises(
            SourceError, match=rf"{len(content) + 4} bytes, expected {len(content)}"
        ):
            engine.fetch(promised("f", hostile_server.url("/f"), content))
    assert engine.left() == []


@pytest.mark.parametrize("kind", ["sha256", None])
def test_it_changes_midway(
    hostile_server: Any, engine: Any, promised: Promised, kind: str | None
) -> None:
    old = os.urandom(len(LARGE))
    hostile_server.files["/f"] = LARGE
    hostile_server.behaviour = lambda exchange, number: (
        exchange.good(old, tag='"old"') if number < 3 else exchange.good(LARGE, tag='"new"')
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), LARGE, kind)) == {"f": LARGE}
    assert any("changed meanwhile" in line for line in engine.said)


def test_it_changes_all_the_time(hostile_server: Any, engine: Any, promised: Promised) -> None:
    hostile_server.files["/f"] = LARGE
    hostile_server.behaviour = lambda exchange, number: exchange.good(tag=f'"{number}"')
    with pytest.raises(SourceError, match="changed meanwhile"):
        engine.fetch(promised("f", hostile_server.url("/f"), LARGE, None))
    assert len(hostile_server.requests) < 100


@pytest.mark.parametrize("kind", ["sha256", None])
@pytest.mark.parametrize("known", [True, False])
def test_ranges_that_are_ignored(
    hostile_server: Any, engine: Any, promised: Promised, kind: str | None, known: bool
) -> None:
    hostile_server.files["/f"] = LARGE
    hostile_server.behaviour = lambda exchange, _number: exchange.answer(200, LARGE)
    remote = promised("f", hostile_server.url("/f"), LARGE, kind)
    assert engine.fetch(remote if known else replace(remote, size=None)) == {"f": LARGE}
    assert len(hostile_server.requests) == 1


def test_ranges_that_are_ignored_after_a_while(
    hostile_server: Any, engine: Any, promised: Promised
) -> None:
    hostile_server.files["/f"] = LARGE
    hostile_server.behaviour = lambda exchange, number: (
        exchange.good() if number < 2 else exchange.answer(200, LARGE, ETag='"one"')
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), LARGE)) == {"f": LARGE}
    assert any("no parts any more" in line for line in engine.said)


def test_nothing_tells_one_state_from_another(
    hostile_server: Any, engine: Any, promised: Promised
) -> None:
    """Without a digest and a tag, parts could be of two files: it comes as a whole."""
    hostile_server.files["/f"] = LARGE
    hostile_server.behaviour = lambda exchange, _number: exchange.good(tag=None)
    assert engine.fetch(promised("f", hostile_server.url("/f"), LARGE, None)) == {"f": LARGE}
    assert ranges(hostile_server)[-1] == "all"
    assert len(hostile_server.requests) == 2
    weak = 'W/"1"'
    hostile_server.behaviour = lambda exchange, _number: exchange.good(tag=weak)
    hostile_server.forget()
    assert engine.fetch(promised("f", hostile_server.url("/f"), LARGE, None)) == {"f": LARGE}
    assert ranges(hostile_server)[-1] == "all"


@pytest.mark.parametrize(
    "lie",
    ["bytes 5-1048575/{0}", "bytes 0-{0}/{0}", "bytes */{0}", "", "bytes 0-1048575"],
)
def test_a_content_range_that_lies(
    hostile_server: Any, engine: Any, promised: Promised, lie: str
) -> None:
    hostile_server.files["/f"] = LARGE

    def behave(exchange: Any, _number: int) -> None:
        if exchange.span:
            first, last = exchange.span
            body = LARGE[first : last + 1]
            exchange.answer(206, body, ETag='"one"', Content_Range=lie.format(len(LARGE)))
        else:
            exchange.good()

    hostile_server.behaviour = behave
    assert engine.fetch(promised("f", hostile_server.url("/f"), LARGE)) == {"f": LARGE}
    assert ranges(hostile_server)[-1] == "all"


def test_a_range_that_is_not_satisfied(
    hostile_server: Any, engine: Any, promised: Promised
) -> None:
    hostile_server.files["/f"] = LARGE
    hostile_server.behaviour = lambda exchange, _number: (
        exchange.answer(416) if exchange.span else exchange.good()
    )
    assert engine.fetch(promised("f", hostile_server.url("/f"), LARGE)) == {"f": LARGE}


@pytest.mark.parametrize("kind", ["sha256", None])
def test_a_compressed_answer_is_refused(
    hostile_server: Any, engine: Any, promised: Promised, kind: str | None
) -> None:
    hostile_server.files["/f"] = SMALL
    hostile_server.behaviour = lambda exchange, _number: exchange.zipped()
    remote = replace(promised("f", hostile_server.url("/f"), SMALL, kind), size=None)
    with pytest.raises(SourceError, match=r"compressed|is not what was pinned"):
        engine.fetch(remote)
    assert engine.left() == []


@pytest.mark.parametrize("more", [-1000, 1000])
def test_a_wrong_content_length(
    hostile_server: Any, engine: Any, promised: Promised, more: int
) -> None:
    hostile_server.files["/f"] = SMALL

    def behave(exchange: Any, number: int) -> None:
        if number < 3:
            exchange.answer(200, SMALL, Content_Length=str(len(SMALL) + more))
            exchange.close()
        else:
            exchange.good()

    hostile_server.behaviour = behave
    remote = replace(promised("f", hostile_server.url("/f"), SMALL), size=None)
    if more > 0:
        assert engine.fetch(remote) == {"f": SMALL}
    else:
        with pytest.raises(SourceError, match="is not what was pinned"):
            engine.fetch(remote)
        assert engine.left() == []
