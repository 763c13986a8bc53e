"""Key-encryption keys: where they are kept, behind one small interface.

A location names them: ``file:<path>``, ``env:<VARIABLE>``, ``aws-kms:<key>``, ``none``. Another
kind is an entry point of the group ``tracklayer.keys``: its name is the word before the colon, it
is called with the rest of the location and the root of the store, and it returns :class:`Keys`.
"""

from __future__ import annotations

import base64
import difflib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from tracklayer.errors import StoreError
from tracklayer.files import locked, mark, write_text
from tracklayer.store.disk import explained, make_folder, sync_folder
from tracklayer.store.seal import KEY, fingerprint

MAKE_A_KEY = "`head -c 32 /dev/urandom | base64` makes one"


class Keys(Protocol):
    """Keys of 32 bytes, each named by its :func:`~tracklayer.store.seal.fingerprint`."""

    @property
    def ids(self) -> Sequence[str]:
        """All that can be had, the current one first."""

    @property
    def current(self) -> tuple[str, bytes]:
        """The id and the key that new files are encrypted with; made where there is none.

        :raises StoreError: it cannot be had.
        """

    def get(self, key_id: str) -> bytes:
        """A key by its id.

        :raises StoreError: it cannot be had; names the id and where it was looked for.
        """

    def new(self) -> str:
        """Make a new current key, durably; the older ones stay.

        :raises StoreError: a person has to; says how.
        """

    def retire(self, key_ids: Collection[str]) -> None:
        """Forget keys that nothing needs any more. Where a person keeps them, nothing happens."""


def keys_of(location: str, *, root: Path) -> Keys | None:
    """The keys of a location; None where encryption is off.

    :param root: the store that they are for.
    :raises StoreError: there is no such kind of location.
    """
    kind, _, rest = location.partition(":")
    if location == "none":
        return None
    if make := _KINDS.get(kind):
        return make(rest, root)
    found = entry_points(group="tracklayer.keys")
    if kind in found.names:
        own: Keys = found[kind].load()(rest, root)
        return own
    known = [*_KINDS, "none", *sorted(found.names)]
    near = difflib.get_close_matches(kind, known, 1)
    raise StoreError(
        f"unknown place of keys: {location!r}",
        hint=(f"Did you mean {near[0]}? " if near else "")
        + f"A location is one of: {', '.join(f'{name}:...' for name in known if name != 'none')},"
        " or none (no encryption).",
    )


def missing(key_id: str, where: str, ids: Sequence[str]) -> StoreError:
    """The error for a key that is not there."""
    return StoreError(
        f"the key {key_id} is needed, and {where} does not have it",
        hint=f"It has: {', '.join(ids) or 'no key'}. Put the key back from your backup: without it,"
        " what it encrypts cannot be read.",
    )


def parse_keys(text: str, where: str) -> dict[str, bytes]:
    """Keys in base64, separated by commas or white space, by their ids in the same order.

    :raises StoreError: something in the text is no key; never shows it.
    """
    found: dict[str, bytes] = {}
    for number, word in enumerate(re.split(r"[\s,]+", text.strip()), 1):
        if not word:
            continue
        try:
            key = base64.b64decode(word, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY:
            raise StoreError(
                f"entry {number} of {where} is not a key",
                hint=f"A key is {KEY} random bytes in base64; {MAKE_A_KEY}.",
            )
        found[fingerprint(key)] = key
    return found


class FileKeys:
    """A file that its owner alone can read, with one key a line; the first is the current one.

    It is made with its first key when that is needed.

    :param sealed: the folder of what is encrypted. While something is in it, a key file that is
        missing has been lost or not mounted, and no new one is begun.
    """

    def __init__(self, path: Path, sealed: Path) -> None:
        self._path, self._sealed = path, sealed
        self._known: tuple[tuple[int, ...] | None, dict[str, bytes]] = None, {}

    @property
    def ids(self) -> Sequence[str]:
        return list(self._load())

    @property
    def current(self) -> tuple[str, bytes]:
        return next(iter((self._load() or self._begin()).items()))

    def _begin(self) -> dict[str, bytes]:
        """The first key, made by whoever comes first."""
        with self._changing():
            if keys := self._load():
                return keys
            if any(self._sealed.glob("??/*")):
                raise StoreError(
                    f"the key file {self._path} is missing, and {self._sealed.parent} holds files"
                    " that its keys encrypt",
                    hint=f"Put it back from your backup. If it is lost for good, so are they:"
                    f" remove {self._sealed}.",
                )
            return self._write([os.urandom(KEY)])

    def get(self, key_id: str) -> bytes:
        keys = self._load()
        if key_id not in keys:
            raise missing(key_id, f"the key file {self._path}", list(keys))
        return keys[key_id]

    def new(self) -> str:
        with self._changing():
            return next(iter(self._write([os.urandom(KEY), *self._load().values()])))

    def retire(self, key_ids: Collection[str]) -> None:
        with self._changing():
            current, *older = self._load().items()
            kept = [key for key_id, key in older if key_id not in key_ids]
            if len(kept) < len(older):
                self._write([current[1], *kept])

    def _load(self) -> dict[str, bytes]:
        """What the file holds now: another process may have changed it."""
        state = mark(self._path)
        known, keys = self._known
        if state and state == known:
            return keys
        with explained(self._path.parent):
            try:
                with self._path.open("rb") as stream:
                    found, raw = os.fstat(stream.fileno()), stream.read()
            except FileNotFoundError:
                return {}
        if found.st_mode & 0o077:
            raise StoreError(
                f"the key file {self._path} can be read by others",
                hint=f"Run: chmod 600 {self._path}",
            )
        keys = parse_keys(raw.decode(errors="replace"), f"the key file {self._path}")
        self._known = state, keys
        return keys

    def _write(self, keys: Sequence[bytes]) -> dict[str, bytes]:
        write_text(self._path, "".join(f"{base64.b64encode(key).decode()}\n" for key in keys))
        # Nothing may be encrypted with a key that a power cut could still take back.
        sync_folder(self._path.parent)
        return self._load()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with explained(self._path.parent):
            make_folder(self._path.parent)
            with locked(self._path.with_name(f"{self._path.name}.lock")):
                yield


class EnvKeys:
    """An environment variable with one key or more, the current one first."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    @property
    def ids(self) -> Sequence[str]:
        return list(self._load())

    @property
    def current(self) -> tuple[str, bytes]:
        for found in self._load().items():
            return found
        raise StoreError(
            f"{self._variable} holds no key for the store", hint=f"Set it; {MAKE_A_KEY}."
        )

    def get(self, key_id: str) -> bytes:
        keys = self._load()
        if key_id not in keys:
            raise missing(key_id, f"the variable {self._variable}", list(keys))
        return keys[key_id]

    def new(self) -> str:
        raise StoreError(
            f"a new key for {self._variable} has to be put there by whoever sets it",
            hint=f"Put a new key first, a comma, then the old ones; {MAKE_A_KEY}. Then rotate again"
            " where the variable is set so.",
        )

    def retire(self, key_ids: Collection[str]) -> None:
        """A variable is changed by whoever sets it."""

    def _load(self) -> dict[str, bytes]:
        text = os.environ.get(self._variable, "")
        return parse_keys(text, f"the variable {self._variable}")


def _file(rest: str, root: Path) -> Keys:
    if not rest:
        raise StoreError("file: names no file for the keys", hint="Write file:<path>.")
    return FileKeys(Path(rest).expanduser(), root / "sealed")


def _env(rest: str, root: Path) -> Keys:  # noqa: ARG001 - the same variable for any store
    return EnvKeys(rest)


def _kms(rest: str, root: Path) -> Keys:
    from tracklayer.store.kms import KmsKeys

    return KmsKeys.parse(rest, root)


_KINDS: dict[str, Callable[[str, Path], Keys]] = {"file": _file, "env": _env, "aws-kms": _kms}
