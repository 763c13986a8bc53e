"""Keys of AWS KMS, or of anything that speaks its protocol.

KMS makes each key-encryption key (GenerateDataKey) and gives it twice: in clear, for the memory of
this process, and encrypted, which is kept. Another process asks KMS once to decrypt it.
"""

from __future__ import annotations

import base64
import logging
import os
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError

from tracklayer.errors import StoreError
from tracklayer.store.disk import Disk, explained
from tracklayer.store.keys import missing
from tracklayer.store.locks import exclusive
from tracklayer.store.seal import fingerprint


class _Wrapped(BaseModel):
    """A key as it is kept. The one with the highest ``number`` is current."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    number: int
    kms_key: str
    blob: str
    """What KMS decrypts, in base64."""
    made: float


class KmsKeys:
    """``<store>/keys/<id>.json``: keys that KMS has encrypted.

    The encryption context names the store: what is kept for one store cannot be decrypted for
    another, and KMS's log says for which store a key was asked. Login, region and proxy are found
    as boto3 finds them.

    :param key: id, alias or ARN of the key in KMS.
    """

    def __init__(
        self, key: str, root: Path, *, region: str | None = None, endpoint: str | None = None
    ) -> None:
        self._key, self._region, self._endpoint = key, region, endpoint
        self._disk = Disk(root)
        self._folder = root / "keys"
        self._clear: dict[str, bytes] = {}
        self._asking = threading.Lock()

    @classmethod
    def parse(cls, rest: str, root: Path) -> Self:
        """``<key id, alias or ARN>?region=...&endpoint=...``

        :raises StoreError: it is something else.
        """
        key, _, query = rest.partition("?")
        options = dict(parse_qsl(query))
        if not key or set(options) - {"region", "endpoint"}:
            raise StoreError(
                f"'aws-kms:{rest}' does not name a key",
                hint="Write aws-kms:<key id, alias/name or ARN>, and where boto3 should not find"
                " them itself ?region=...&endpoint=https://...",
            )
        return cls(key, root, **options)

    @property
    def ids(self) -> Sequence[str]:
        return [key_id for _, key_id in self._kept()]

    @property
    def current(self) -> tuple[str, bytes]:
        if not (kept := self._kept()):
            with self._changing():
                kept = self._kept()
                key_id = kept[0][1] if kept else self._generate(1)
        else:
            key_id = kept[0][1]
        return key_id, self.get(key_id)

    def get(self, key_id: str) -> bytes:
        with self._asking:
            if key_id not in self._clear:
                self._clear[key_id] = self._decrypt(key_id)
            return self._clear[key_id]

    def new(self) -> str:
        with self._changing():
            kept = self._kept()
            return self._generate(kept[0][0] + 1 if kept else 1)

    def retire(self, key_ids: Collection[str]) -> None:
        with self._changing():
            for key_id in set(key_ids) - {self.ids[0]}:
                (self._folder / f"{key_id}.json").unlink(missing_ok=True)
                self._clear.pop(key_id, None)

    def _kept(self) -> list[tuple[int, str]]:
        """Number and id of all keys, the current one first."""
        found = []
        with explained(self._disk.root):
            for path in self._folder.glob("*.json"):
                with suppress(FileNotFoundError):  # retired meanwhile
                    found.append((self._read(path).number, path.stem))
        return sorted(found, reverse=True)

    def _read(self, path: Path) -> _Wrapped:
        try:
            return _Wrapped.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise StoreError(
                f"{path} is damaged: {error.errors()[0]['msg']}",
                hint="Put it back from your backup: without it, what its key encrypts cannot be"
                " read.",
            ) from error

    def _generate(self, number: int) -> str:
        with self._asked("GenerateDataKey"):
            answer = self._client.generate_data_key(
                KeyId=self._key, KeySpec="AES_256", EncryptionContext=self._context
            )
        key: bytes = answer["Plaintext"]
        key_id = fingerprint(key)
        wrapped = _Wrapped(
            number=number,
            kms_key=answer["KeyId"],
            blob=base64.b64encode(answer["CiphertextBlob"]).decode(),
            made=time.time(),
        )
        self._disk.write_small(
            self._folder / f"{key_id}.json", wrapped.model_dump_json(indent=1).encode()
        )
        self._clear[key_id] = key
        return key_id

    def _decrypt(self, key_id: str) -> bytes:
        path = self._folder / f"{key_id}.json"
        with explained(self._disk.root):
            if not path.exists():
                raise missing(key_id, f"the folder {self._folder}", self.ids)
            wrapped = self._read(path)
        with self._asked("Decrypt", key_id):
            answer = self._client.decrypt(
                KeyId=wrapped.kms_key,
                CiphertextBlob=base64.b64decode(wrapped.blob),
                EncryptionContext=self._context,
            )
        key: bytes = answer["Plaintext"]
        if fingerprint(key) != key_id:
            raise StoreError(f"{path} is damaged: it holds the key {fingerprint(key)}")
        return key

    @cached_property
    def _client(self) -> Any:
        import boto3

        logging.getLogger("botocore").setLevel(logging.INFO)  # below that it logs what it is given
        session = boto3.Session(region_name=self._region)
        return session.client("kms", endpoint_url=self._endpoint)

    @property
    def _context(self) -> dict[str, str]:
        """Says which store it is: by an id, for a store may be moved."""
        path = self._folder / "store"
        with explained(self._disk.root):
            try:
                return {"tracklayer-store": path.read_text()}
            except FileNotFoundError:
                self._disk.write_small(path, os.urandom(16).hex().encode())
                return {"tracklayer-store": path.read_text()}

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with explained(self._disk.root), exclusive(self._disk.folder("keys") / ".lock"):
            yield

    @contextmanager
    def _asked(self, what: str, key_id: str = "") -> Iterator[None]:
        """Maps what boto3 raises."""
        from botocore.exceptions import BotoCoreError, ClientError

        what = f"{what} of KMS for the key {key_id}" if key_id else f"{what} of KMS"
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise StoreError(
                f"{what} with {self._key}: {code}: {error.response['Error'].get('Message', '')}",
                hint=_HINTS.get(code, "Is it the right key, region and account?"),
            ) from error
        except BotoCoreError as error:
            raise StoreError(
                f"{what} with {self._key}: {error}",
                hint="boto3 reads its login and region from the environment, ~/.aws and the"
                " machine's role.",
            ) from error


_HINTS = {
    "AccessDeniedException": "The login needs kms:GenerateDataKey and kms:Decrypt on this key.",
    "InvalidCiphertextException": "The file of the key is damaged, or of another store.",
    "NotFoundException": "There is no such key in this region and account.",
    "DisabledException": "Enable the key again.",
    "KMSInvalidStateException": "Enable the key again, or cancel its deletion.",
}
