"""HTTPS: a certificate that can be renewed while requests come in."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from tracklayer.errors import PlatformError
from tracklayer.files import mark

log = logging.getLogger(__name__)


class Certificate:
    """A certificate with its chain and its key, in PEM files. New connections get what the files
    hold when they changed last; a renewal that is not whole, or not right, changes nothing.

    :ivar pem: what the files held then: the certificate, the key.
    :raises PlatformError: a file cannot be read, or they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._state()
        self._load(self.context)

    def renew(self) -> bool:
        """Take the files as they are, if they have changed; whether others are in use now."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            # First into another: a certificate without its key must not get into ours.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except PlatformError as error:
            log.error("the certificate stays as it was: %s", error.message)
            return False
        log.warning("the certificate was renewed from %s", self._files[0])
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self._files
        found = []
        for file in self._files:
            try:
                found.append(file.read_bytes())
            except OSError as error:
                raise PlatformError(
                    f"the TLS file {file} cannot be read: {error.strerror}",
                    hint="Set TRACKLAYER_GATEWAY_TLS_CERT and TRACKLAYER_GATEWAY_TLS_KEY to PEM "
                    "files that this user can read.",
                ) from None
        try:
            # An empty password: the question for one would be asked on a terminal.
            context.load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise PlatformError(
                f"the TLS certificate {certificate} and the key {key} cannot be used: "
                f"{reason.replace('_', ' ').lower()}",
                hint="The first is a certificate with its chain, the second its key without a "
                "password, both in PEM.",
            ) from None
        self.pem = (found[0], found[1])

    def _state(self) -> list[tuple[int, ...] | None]:
        return [mark(file) for file in self._files]
