"""The store's keys in an Airflow connection: ``airflow:<connection id>``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from tracklayer.errors import PlatformError, StoreError
from tracklayer.store.keys import MAKE_A_KEY, missing, parse_keys
from tracklayer_airflow.connections import find, how_to_add


class ConnectionKeys:
    """The password of a connection: one key or more in base64, the current one first.

    It is asked for once a process, and again when a key is needed that it did not have.
    """

    def __init__(self, conn_id: str, root: Path) -> None:  # noqa: ARG002 - the same for any store
        if not conn_id:
            raise StoreError(
                "airflow: names no connection for the keys", hint="Write airflow:<connection id>."
            )
        self._conn_id = conn_id
        self._where = f"the Airflow connection {conn_id}"
        self._keys: dict[str, bytes] = {}

    @property
    def ids(self) -> Sequence[str]:
        """All that can be had, the current one first."""
        return list(self._load())

    @property
    def current(self) -> tuple[str, bytes]:
        """The first key of the connection, with its id."""
        for found in (self._keys or self._load()).items():
            return found
        raise StoreError(
            f"{self._where} has no key for the store in its password",
            hint=f"Set it on Airflow's page under Admin, Connections; {MAKE_A_KEY}.",
        )

    def get(self, key_id: str) -> bytes:
        """A key by its id."""
        if key_id not in self._keys and key_id not in self._load():
            raise missing(key_id, self._where, list(self._keys))
        return self._keys[key_id]

    def new(self) -> str:
        """Only a person changes a connection."""
        raise StoreError(
            f"a new key has to be put into {self._where} by a person",
            hint="On Airflow's page under Admin, Connections, put a new key first into its "
            f"password, a comma, then the old ones; {MAKE_A_KEY}. Then rotate again.",
        )

    def retire(self, key_ids: Collection[str]) -> None:
        """Only a person changes a connection."""

    def _load(self) -> dict[str, bytes]:
        try:
            found = find(self._conn_id)
        except PlatformError as error:
            raise StoreError(f"the store's keys: {error.message}", hint=error.hint) from error
        if found is None:
            raise StoreError(
                f"{self._where}, which holds the store's keys, does not exist",
                hint=how_to_add(self._conn_id, f"--conn-password <key>; {MAKE_A_KEY}"),
            )
        self._keys = parse_keys(found.password, f"the password of {self._where}")
        return self._keys
