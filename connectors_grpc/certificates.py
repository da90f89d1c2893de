"""Client certificates by integration: which one a connection shows, read anew when its files change. Knows no socket.

The key lies on the machine that dials, and never travels: not to the Vault, not in a lease.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from connectors_grpc.logs import get

log = get("certificates")

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
SHAPE = "INTEGRATION=CHAIN,KEY, as in bank=/etc/connectors/bank.pem,/etc/connectors/bank.key"


class CertificateRefused(ValueError):
    """The text or the files are no client certificate; the message says what is wanted."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """PEM files: a certificate with its chain, and its key without a passphrase."""

    chain: Path
    key: Path


class Contexts:
    """The TLS context of each identity: an integration's id, or "" for none. `make` gives one that verifies the peer.

    Raises: CertificateRefused, at the start; later what can't be read is logged, and the last pair goes on.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], certificates: Mapping[str, ClientCertificate] | None = None
    ) -> None:
        self._make = make
        self._plain = make()
        self._certificates = dict(certificates or {})
        self._loaded = {name: (_stamp(pair), self._load(name, pair)) for name, pair in self._certificates.items()}

    @property
    def identities(self) -> frozenset[str]:
        """Those with a certificate."""
        return frozenset(self._certificates)

    def of(self, identity: str) -> ssl.SSLContext:
        """For a connection that is made now."""
        pair = self._certificates.get(identity)
        if pair is None:
            return self._plain
        stamp, context = self._loaded[identity]
        now = _stamp(pair)
        if now != stamp:
            try:
                context = self._load(identity, pair)
            except CertificateRefused:
                log.warning("certificate.kept_the_last", integration=identity)
            self._loaded[identity] = now, context
        return context

    def _load(self, name: str, pair: ClientCertificate) -> ssl.SSLContext:
        context = self._make()
        try:
            context.load_cert_chain(pair.chain, pair.key, password="")  # a passphrase is not asked for at the terminal
        except (OSError, ValueError):  # an SSLError is an OSError; its text is OpenSSL's own
            raise CertificateRefused(f"of {name}: no certificate in PEM with its key, without a passphrase") from None
        return context


def read_certificates(entries: Iterable[str]) -> dict[str, ClientCertificate]:
    """`INTEGRATION=CHAIN,KEY` each. Raises: CertificateRefused."""
    found: dict[str, ClientCertificate] = {}
    for entry in entries:
        name, _, files = entry.partition("=")
        chain, _, key = files.partition(",")
        if _ID.fullmatch(name) is None or name in found or not chain or not key or "," in key:
            raise CertificateRefused(f"must be {SHAPE}, once for each integration")
        found[name] = ClientCertificate(Path(chain), Path(key))
    return found


def _stamp(pair: ClientCertificate) -> tuple[object, ...]:
    """Another one, once either file is another or was written."""
    return tuple(_file(path) for path in (pair.chain, pair.key))


def _file(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links, as loading does
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
