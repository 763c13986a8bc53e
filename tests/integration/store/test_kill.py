"""`kill -9` at every step: what is stored is whole, and what was begun can be done again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Never

import pytest

from tracklayer.store import Store, scan
from tracklayer.store.seal import CHUNK, HEADER, Header

if TYPE_CHECKING:
    from tests.integration.store.conftest import Children, Room, Work

SIZE = CHUNK + 5
CONTENT = bytes(range(256)) * (CHUNK // 256) + b"12345"


def test_a_put(furnished: Room, children: Children) -> None:
    rooms: dict[int, Room] = {}

    def put(room: Room) -> None:
        manifest = room.put("new", big=CONTENT[:-1], small=b"new")
        room.store.set_ref("new", manifest)

    def work(step: int) -> Work:
        rooms[step] = furnished.copy(str(step))
        return lambda: put(rooms[step])

    for step in children.killed_at_every_step(work):
        room = rooms.pop(step)
        room.check()
        put(room)
        room.check()
        assert room.store.usage().sealed == 7
        assert room.left_over() == []
    assert len(rooms) == 1


def test_a_draft(room: Room, children: Children) -> None:
    store = room.store

    def receive() -> None:
        with store.draft("new", SIZE) as draft:
            for index in draft.missing():
                draft.write(index, CONTENT[index * CHUNK : (index + 1) * CHUNK])
            store.set_ref("new", draft.commit())

    for _ in children.killed_at_every_step(lambda _: receive):
        assert room.store.verify() == []
        folder = next(room.store.root.glob("drafts/*/data"), room.folder).parent
        arrived = folder / "arrived"  # but nothing counts when the rest is an object already
        before = arrived.read_bytes().count(1) if arrived.exists() else 0
        with room.store.draft("new", SIZE) as draft:
            # What was noted as arrived is not fetched again.
            assert len(draft.missing()) == 2 - before
            draft.discard()
        assert not list(room.store.root.glob("drafts/*"))
        for path in room.store.root.glob("sealed/??/*"):
            path.unlink()  # it was placed before the end
    assert room.content("new") == CONTENT


def test_a_get(furnished: Room, children: Children) -> None:
    manifest = furnished.tree("runs/x/1/train")
    private = furnished.folder / "run"
    into = private / "input"

    def get() -> None:
        furnished.store.materialise(manifest.digest, into)

    for _ in children.killed_at_every_step(lambda _: get):
        furnished.check()
        if into.exists():  # killed after it was whole
            assert scan(into) == scan(furnished.folder / "files" / "a")
        get()
        assert scan(into) == scan(furnished.folder / "files" / "a")
        # Nothing of the killed one stays, which was plain text.
        assert [path.name for path in private.iterdir()] == ["input"]
        shutil.rmtree(private)


def test_a_rotation(furnished: Room, children: Children) -> None:
    Store(furnished.store.root).put_tree(furnished.folder / "files" / "a")
    rooms: dict[int, Room] = {}

    def work(step: int) -> Work:
        rooms[step] = furnished.copy(str(step))
        return lambda: work_in(rooms[step])

    def work_in(room: Room) -> None:
        room.store.rotate()

    made = set()
    for step in children.killed_at_every_step(work):
        room = rooms.pop(step)
        room.check()
        done = room.store.rotate()
        made.add(done.made)
        assert done.problems == ()
        room.check()
        assert room.store.usage().plain == 0
        assert list(room.keys.ids) == [done.key]
        for path in room.store.root.glob("sealed/??/*"):
            [slot] = Header.parse(path.read_bytes()[:HEADER]).newest
            assert slot.key_id == done.key
        assert room.left_over() == []
    assert made == {True, False}  # once there was nothing to finish, once there was


def test_a_collection(furnished: Room, children: Children) -> None:
    rooms: dict[int, Room] = {}
    garbage = furnished.store.manifest(furnished.put("d", garbage=b"garbage").digest)

    def work(step: int) -> Work:
        rooms[step] = furnished.copy(str(step))
        return lambda: collect(rooms[step])

    def collect(room: Room) -> None:
        room.store.collect(quota=0)

    for step in children.killed_at_every_step(work):
        room = rooms.pop(step)
        room.check()
        collect(room)
        room.check()
        assert room.store.usage()[:4] == (3, 0, 2, 2)
        assert not room.store.has(garbage)


def test_the_making_of_the_first_key(room: Room, children: Children) -> None:
    for _ in children.killed_at_every_step(lambda _: lambda: room.keys.current and None):
        key_id, _key = room.keys.current
        assert list(room.keys.ids) == [key_id]
        shutil.rmtree(room.folder)


@pytest.mark.parametrize("call", ["pwrite64", "fsync"])
def test_a_put_under_a_tracer(
    tmp_path: Path, room: Room, give_up: Callable[[str], Never], call: str
) -> None:
    """The same as the kernel sees it: a process of its own, ended at its n-th call of a kind."""
    (tmp_path / "f").write_bytes(CONTENT)
    code = (
        "import sys; from pathlib import Path; from tracklayer.store import Store, keys_of;"
        "root = Path(sys.argv[1]); store = Store(root, keys_of(sys.argv[2], root=root));"
        "store.set_ref('f', store.put_file(Path(sys.argv[3])))"
    )
    location = f"file:{room.folder / 'keys'}"
    program = [sys.executable, "-c", code, str(room.store.root), location, str(tmp_path / "f")]
    tracer = shutil.which("strace") or give_up("there is no strace")
    for step in range(1, 50):
        trace = [tracer, "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
        inject = f"inject={call}:signal=SIGKILL:when={step}"
        done = subprocess.run([*trace, "-e", inject, *program], timeout=60, check=False)
        assert room.store.verify() == []
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        room.store.collect()
    assert step > 4
    assert room.content("f") == CONTENT
