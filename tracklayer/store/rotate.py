"""A new key for everything: headers are rewritten, contents are not."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tracklayer.errors import StoreError
from tracklayer.store.disk import explained, sync, write_all
from tracklayer.store.keys import Keys
from tracklayer.store.locks import exclusive
from tracklayer.store.manifest import hash_file
from tracklayer.store.objects import Objects, digest_at
from tracklayer.store.seal import HEADER, SLOT, Damage, Header, unwrap
from tracklayer.store.writer import store_file

Progress = Callable[[str], None]

_OFTEN = 10_000  # objects from one line to the next


@dataclass(frozen=True)
class Rotated:
    """What a rotation did.

    ``key``: the id of the current key; ``made``: whether it is new. ``rewrapped``: objects whose
    header was rewritten; ``sealed``: plain objects that were encrypted. ``unused``: keys that no
    object needs any more; they were forgotten where the store keeps its keys itself.
    ``problems``: a sentence for each object that stays as it was.
    """

    key: str
    made: bool
    rewrapped: int
    sealed: int
    unused: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass
class _Pass:
    rewrapped: int = 0
    sealed: int = 0
    needed: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class Rotation:
    """One rotation; a second one waits for it.

    The new slots of all objects are made durable with one call before any old slot is wiped, and
    that before an old key is forgotten. Killed at any point, every object can be read, and the next
    rotation finishes this one instead of beginning another.
    """

    def __init__(self, objects: Objects, keys: Keys, report: Progress) -> None:
        self._objects, self._keys, self._report = objects, keys, report
        self._root = objects.root

    def run(self) -> Rotated:
        """See :meth:`tracklayer.store.store.Store.rotate`."""
        with explained(self._root):
            folder = self._objects.disk.folder()
            with exclusive(folder / "rotation.lock"), self._objects.disk.session():
                done = self._pass()
                made = not (done.rewrapped or done.sealed or self._unused(done))
                if made:
                    # Whoever wrapped a data key with the older one has placed its object then.
                    with exclusive(folder / "commit.lock"):
                        self._keys.new()
                    done = self._pass()
                unused = self._unused(done)
                self._keys.retire(unused)
        return Rotated(
            key=self._keys.current[0],
            made=made,
            rewrapped=done.rewrapped,
            sealed=done.sealed,
            unused=tuple(unused),
            problems=tuple(done.problems),
        )

    def _unused(self, done: _Pass) -> list[str]:
        current, *older = self._keys.ids
        return [key_id for key_id in older if key_id not in done.needed and key_id != current]

    def _pass(self) -> _Pass:
        """Bring every object under the current key."""
        done = _Pass()
        key_id, key = self._keys.current
        for path in sorted(self._root.glob("objects/??/*")):
            self._try(path, done, self._seal)
        paths = sorted(self._root.glob("sealed/??/*"))
        stale: list[Path] = []

        def rewrap(path: Path, done: _Pass) -> None:
            if self._rewrap(path, key_id, key, done):
                stale.append(path)

        for number, path in enumerate(paths, 1):
            self._try(path, done, rewrap)
            if number % _OFTEN == 0:
                self._report(f"{number} of {len(paths)} objects")
        if stale:
            sync(self._root)
            for path in stale:
                self._try(path, done, lambda path, _: self._wipe(path, key_id))
            sync(self._root)
        return done

    def _try(self, path: Path, done: _Pass, step: Callable[[Path, _Pass], None]) -> None:
        try:
            step(path, done)
        except FileNotFoundError:
            pass  # collected meanwhile
        except (Damage, StoreError) as error:
            done.problems.append(f"{digest_at(path)}: {error}")
            with suppress(Damage, OSError), path.open("rb") as stream:
                done.needed |= {slot.key_id for slot in Header.parse(stream.read(HEADER)).newest}

    def _seal(self, path: Path, done: _Pass) -> None:
        if hash_file(path).digest != digest_at(path):
            raise Damage("its content is another")
        store_file(self._objects, path)  # which removes the plain one
        done.sealed += 1

    def _rewrap(self, path: Path, key_id: str, key: bytes, done: _Pass) -> bool:
        """Write a slot for the current key beside the one that counts.

        :returns: whether there is an older slot to be wiped.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            raw = os.pread(descriptor, HEADER, 0)
            header = Header.parse(raw)
            if header.newest[0].key_id == key_id:
                return any(_other(header, raw))
            cipher, slot = unwrap(header, self._keys.get)
            number = header.newest[0].number + 1
            fresh = cipher.wrap(key_id, key, slot.digest, slot.size, number=number)
            write_all(descriptor, fresh.pack(), header.place_beside(slot))
            done.rewrapped += 1
            return True
        finally:
            os.close(descriptor)

    def _wipe(self, path: Path, key_id: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            header = Header.parse(os.pread(descriptor, HEADER, 0))
            if header.newest[0].key_id == key_id:  # and not another file of the same name
                write_all(descriptor, bytes(SLOT), header.place_beside(header.newest[0]))
        finally:
            os.close(descriptor)


def _other(header: Header, raw: bytes) -> bytes:
    place = header.place_beside(header.newest[0])
    return raw[place : place + SLOT]
