"""Whoever has the disk: a chunk that is flipped, dropped, repeated, swapped or spliced, at any
boundary of chunks, is refused by everything that reads an object."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracklayer.errors import StoreError
from tracklayer.store import Store
from tracklayer.store.seal import CHUNK, FRAME, HEADER

if TYPE_CHECKING:
    from tests.integration.store.conftest import Room

CONTENT = os.urandom(3 * CHUNK + 5)  # four chunks
Frames = list[bytes]


def flip(place: int) -> Callable[[Frames, Frames, int], Frames]:
    """One bit at a place of a chunk; from its end, if that is negative."""

    def change(frames: Frames, _twin: Frames, at: int) -> Frames:
        frame = bytearray(frames[at])
        frame[place] ^= 1
        return [*frames[:at], bytes(frame), *frames[at + 1 :]]

    return change


def drop(frames: Frames, _twin: Frames, at: int) -> Frames:
    return [*frames[:at], *frames[at + 1 :]]


def repeat(frames: Frames, _twin: Frames, at: int) -> Frames:
    return [*frames[: at + 1], *frames[at:]]


def repeat_over_the_next(frames: Frames, _twin: Frames, at: int) -> Frames:
    """As much of it as fits, so that the length stays."""
    other = (at + 1) % len(frames)
    copy = frames[at][: len(frames[other])]
    changed = list(frames)
    changed[other] = copy + frames[other][len(copy) :]
    return changed


def swap(frames: Frames, _twin: Frames, at: int) -> Frames:
    other = (at + 1) % len(frames)
    changed = list(frames)
    changed[at], changed[other] = changed[other], changed[at]
    return changed


def splice(frames: Frames, twin: Frames, at: int) -> Frames:
    return [*frames[:at], twin[at], *frames[at + 1 :]]


def splice_the_rest(frames: Frames, twin: Frames, at: int) -> Frames:
    return [*frames[:at], *twin[at:]]


def end(frames: Frames, _twin: Frames, at: int) -> Frames:
    return frames[:at]


CHANGES = {
    "first bit flipped": flip(0),
    "last bit of the content flipped": flip(-21),
    "tag flipped": flip(-5),
    "salt flipped": flip(-1),
    **{change.__name__: change for change in (drop, repeat, repeat_over_the_next, swap, splice)},
    **{change.__name__: change for change in (splice_the_rest, end)},
}


@pytest.fixture
def twin(room: Room) -> Frames:
    """The chunks of the same content under the same key, in another store."""
    store = Store(room.folder / "twin", room.keys)
    (room.folder / "content").parent.mkdir(parents=True, exist_ok=True)
    (room.folder / "content").write_bytes(CONTENT)
    store.put_file(room.folder / "content")
    [path] = store.root.glob("sealed/??/*")
    return frames_of(path)


def frames_of(path: Path) -> Frames:
    raw = path.read_bytes()
    return [raw[start : start + FRAME] for start in range(HEADER, len(raw), FRAME)]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_at_every_boundary(
    room: Room, twin: Frames, change: Callable[[Frames, Frames, int], Frames]
) -> None:
    manifest = room.put("a", f=CONTENT)
    [blob] = manifest.files
    [path] = room.store.root.glob("sealed/??/*")
    good, frames = path.read_bytes(), frames_of(path)
    assert len(frames) == len(twin) == 4
    path.chmod(0o600)
    for at in range(len(frames)):
        changed = good[:HEADER] + b"".join(change(frames, twin, at))
        assert changed != good
        path.write_bytes(changed)
        store = room.store
        with pytest.raises(StoreError, match=f"{blob.digest} .* is damaged"):
            read_whole(store, manifest.digest)
        with pytest.raises(StoreError, match=f"{blob.digest} .* is damaged"):
            store.materialise(manifest.digest, room.folder / "out")
        assert not (room.folder / "out").exists()
        [problem] = store.verify()
        assert problem.startswith(f"{blob.digest} is damaged")
    path.write_bytes(good)
    room.store.materialise(manifest.digest, room.folder / "out")
    assert (room.folder / "out" / "f").read_bytes() == CONTENT
    assert room.store.verify() == []


def read_whole(store: Store, tree: str) -> None:
    [blob] = store.manifest(tree).files
    with store.open(blob) as stream:
        stream.read()
