"""Several processes at once, and what they leave on the disk and in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import StoreError
from tracklayer.store.seal import CHUNK, HEADER, Header

if TYPE_CHECKING:
    from tests.integration.store.conftest import Children, Room

MARK = b"Nobody may read this but who has the key. "
SECRET = (MARK * (2 * CHUNK // len(MARK) + 1))[: 2 * CHUNK + 5]


def test_two_that_put_the_same(room: Room, children: Children) -> None:
    """Also the first key is made by both."""

    def put() -> None:
        for number in range(20):
            with room.store.create() as writer:
                writer.write(bytes([number]) * (CHUNK + number))
                room.store.set_ref(f"{os.getpid()}/{number}", writer.commit())

    assert children.together(put, put) == [0, 0]
    assert room.store.verify() == []
    assert room.store.usage().sealed == 20
    assert len(room.keys.ids) == 1
    assert room.left_over() == []


def test_a_put_while_another_collects(furnished: Room, children: Children) -> None:
    def put() -> None:
        for number in range(15):
            with furnished.store.session():
                manifest = furnished.put(str(number), f=b"%d" % number, small=b"small")
                furnished.store.set_ref(f"new/{number}", manifest)

    def collect() -> None:
        for _ in range(30):
            furnished.store.collect(quota=0)

    assert children.together(put, collect, collect) == [0, 0, 0]
    furnished.check()
    for number in range(15):
        assert furnished.store.has(furnished.tree(f"new/{number}"))
    furnished.store.collect(quota=0)
    assert furnished.store.usage().sealed == 3 + 15


def test_two_rotations_while_others_put_and_read(furnished: Room, children: Children) -> None:
    def rotate() -> None:
        for _ in range(6):
            assert furnished.store.rotate().problems == ()

    def put() -> None:
        for number in range(40):
            with furnished.store.create() as writer:
                writer.write(b"%d" % number)
                furnished.store.set_ref(f"new/{number}", writer.commit())

    def read() -> None:
        for _ in range(20):
            furnished.check()

    assert children.together(rotate, rotate, put, read) == [0, 0, 0, 0]
    furnished.check()
    for number in range(40):
        assert furnished.content(f"new/{number}") == b"%d" % number
    furnished.store.rotate()
    assert len(furnished.keys.ids) == 1
    for path in furnished.store.root.glob("sealed/??/*"):
        assert [slot.key_id for slot in Header.parse(path.read_bytes()[:HEADER]).newest] == list(
            furnished.keys.ids
        )


def test_two_that_receive_the_same(room: Room, children: Children) -> None:
    def receive() -> None:
        with room.store.draft("same", len(SECRET)) as draft:
            for index in draft.missing():
                draft.write(index, SECRET[index * CHUNK : (index + 1) * CHUNK])
                time.sleep(0.05)
            room.store.set_ref("same", draft.commit())

    assert children.together(receive, receive) == [0, 0]
    assert room.store.usage().sealed == 1
    assert room.content("same") == SECRET
    assert room.left_over() == []


def test_what_one_receives_another_goes_on_with(room: Room, children: Children) -> None:
    def receive() -> None:
        with room.store.draft("same", len(SECRET)) as draft:
            draft.write(1, SECRET[CHUNK : 2 * CHUNK])
            os.kill(os.getpid(), 9)

    assert children.run(receive) == -9
    with room.store.draft("same", len(SECRET)) as draft:
        assert draft.missing() == [0, 2]


def test_no_plain_text_is_on_the_disk(room: Room, children: Children, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    room.store.put_file(tmp_path / "secret")

    def half_a_put() -> None:
        with room.store.create() as writer:
            writer.write(SECRET)
            os.kill(os.getpid(), 9)

    def half_a_draft() -> None:
        with room.store.draft("same", len(SECRET)) as draft:
            draft.write(1, SECRET[CHUNK : 2 * CHUNK])
            draft.write(2, SECRET[2 * CHUNK :])
            os.kill(os.getpid(), 9)

    def seen() -> list[Path]:
        files = [path for path in room.store.root.rglob("*") if path.is_file()]
        assert files
        return [path for path in files if MARK[:16] in path.read_bytes()]

    assert children.run(half_a_put) == -9
    assert list(room.store.root.glob("tmp/*"))
    assert children.run(half_a_draft) == -9
    assert list(room.store.root.glob("drafts/*"))
    assert seen() == []
    _, key = room.keys.current
    assert not [
        path for path in room.store.root.rglob("*") if path.is_file() and key in path.read_bytes()
    ]
    type(room.store)(room.store.root).put_file(tmp_path / "secret")
    assert len(seen()) == 1  # which is what would be found
    room.store.rotate()
    assert seen() == []


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(300 << 20)
    code = """
import sys
from pathlib import Path
from tracklayer.store import File, Store, keys_of
from tracklayer.store.stream import seal, unseal
folder = Path(sys.argv[1])
keys = keys_of(f"file:{folder / 'keys'}", root=folder / "store")
store = Store(folder / "store", keys)
blob = store.put_file(folder / "big")
tree = store.put_manifest([File(path="f", digest=blob.digest, size=blob.size)])
store.materialise(tree.digest, folder / "out")
with (folder / "big").open("rb") as source, (folder / "sealed").open("w+b") as target:
    seal(source, target, keys)
with (folder / "sealed").open("rb") as source, (folder / "again").open("w+b") as target:
    unseal(source, target, keys)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100 * 1024  # KiB


def test_a_store_in_use_says_so_to_a_collector(room: Room, children: Children) -> None:
    reading, writing = os.pipe()

    def hold() -> None:
        with room.store.session():
            os.write(writing, b"x")
            time.sleep(60)

    pid = children.start(hold)
    os.read(reading, 1)
    with pytest.raises(StoreError, match=r"is in use: something is being stored or read; waited"):
        room.store.collect(wait=0.2)
    os.kill(pid, 9)
    assert children.wait(pid) == -9
    room.store.collect(wait=0.2)  # its lock went with it
    os.close(reading)
    os.close(writing)
