"""The ports in memory: for checks of definitions and tests of use cases; the first to obey the laws. Gone with the process."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from connectors_grpc.errors import Conflict, KeyMissing, Undecipherable, VaultUnavailable
from connectors_grpc.grammar import (
    SEALED,
    check_batch,
    check_cas,
    check_context,
    check_data,
    check_folder,
    check_limit,
    check_name,
    check_path,
    check_sealing,
    sealed_version,
)
from connectors_grpc.ports import DataKey, Document, DocumentPage, Json, KeyVersions, Sealed

_NONCE = 12


class Outage:
    """A switch: while `down` is set, every call of the store fails as a Vault that is down."""

    def __init__(self) -> None:
        self.down = False

    def check(self) -> None:
        """Raises: VaultUnavailable."""
        if self.down:
            raise VaultUnavailable


class MemoryDocuments:
    """`Documents` as a dict. What is read is a copy, so that nobody changes what is stored."""

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self._stored: dict[str, tuple[str, int]] = {}

    async def read(self, path: str) -> Document | None:
        """See ports.Documents."""
        check_path(path)
        self.outage.check()
        found = self._stored.get(path)
        return Document(json.loads(found[0]), found[1]) if found else None

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        """See ports.Documents.  Raises: also ValueError, for data that would not come back as it went in."""
        check_path(path)
        check_data(data)
        check_cas(cas)
        self.outage.check()
        _, current = self._stored.get(path, ("", 0))
        if cas is not None and cas != current:
            raise Conflict
        self._stored[path] = (json.dumps(data), current + 1)
        return current + 1

    async def replace(self, path: str, data: Json, *, cas: int) -> int:
        """See ports.Documents. No older version is kept here anyway."""
        return await self.write(path, data, cas=cas)

    async def purge(self, path: str) -> None:
        """See ports.Documents."""
        check_path(path)
        self.outage.check()
        self._stored.pop(path, None)

    async def list(self, folder: str, *, after: str = "", limit: int = 1000) -> DocumentPage:
        """See ports.Documents."""
        check_folder(folder)
        check_limit(limit)
        self.outage.check()
        start = f"{folder}/"
        under = (path.removeprefix(start) for path in self._stored if path.startswith(start))
        names = sorted(name for name in under if "/" not in name and name > after)
        return DocumentPage(tuple(names[:limit]), len(names) > limit)


@dataclass(slots=True)
class _Ring:
    """The versions of one key that are left."""

    keys: dict[int, bytes] = field(default_factory=lambda: {1: secrets.token_bytes(32)}, repr=False)


class MemoryCiphers:
    """`Ciphers` with AES-256-GCM, under keys that HKDF derives from the context.  Source: RFC 5869."""

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self._rings: dict[str, _Ring] = {}

    async def create_key(self, name: str) -> None:
        """See ports.Ciphers."""
        check_name(name)
        self.outage.check()
        self._rings.setdefault(name, _Ring())

    async def encrypt(self, name: str, context: bytes, plaintext: bytes) -> str:
        """See ports.Ciphers.  Raises: also ValueError, for an empty context or a plaintext above 64 KiB."""
        check_name(name)
        check_sealing(context, plaintext)
        version = max(self._ring(name).keys)
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._aead(name, version, context).encrypt(nonce, plaintext, None)
        return f"vault:v{version}:{base64.b64encode(sealed).decode('ascii')}"

    async def decrypt(self, name: str, context: bytes, ciphertext: str) -> bytes:
        """See ports.Ciphers.  Raises: also ValueError, for an empty context."""
        check_name(name)
        check_context(context)
        version = sealed_version(ciphertext)
        if version not in self._ring(name).keys:
            raise Undecipherable
        aead = self._aead(name, version, context)
        try:
            sealed = base64.b64decode(SEALED.sub("", ciphertext, count=1), validate=True)
            return aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except (InvalidTag, binascii.Error, ValueError):
            raise Undecipherable from None

    async def data_key(self, name: str, context: bytes) -> DataKey:
        """See ports.Ciphers.  Raises: also ValueError, for an empty context."""
        plaintext = secrets.token_bytes(32)
        return DataKey(plaintext, await self.encrypt(name, context, plaintext))

    async def shred_key(self, name: str) -> None:
        """See ports.Ciphers."""
        check_name(name)
        self.outage.check()
        self._rings.pop(name, None)

    async def key_versions(self, name: str) -> KeyVersions:
        """See ports.Ciphers."""
        check_name(name)
        keys = self._ring(name).keys
        return KeyVersions(max(keys), min(keys))

    async def rotate(self, name: str) -> None:
        """See ports.Ciphers."""
        check_name(name)
        keys = self._ring(name).keys
        keys[max(keys) + 1] = secrets.token_bytes(32)

    async def rewrap(self, name: str, items: Sequence[Sealed]) -> Sequence[str | None]:
        """See ports.Ciphers."""
        check_name(name)
        check_batch(items)
        self._ring(name)
        return [await self._rewrapped(name, item) for item in items]

    async def _rewrapped(self, name: str, item: Sealed) -> str | None:
        try:
            return await self.encrypt(name, item.context, await self.decrypt(name, item.context, item.ciphertext))
        except Undecipherable:
            return None

    async def retire(self, name: str, version: int) -> None:
        """See ports.Ciphers."""
        check_name(name)
        ring = self._ring(name)
        if version > max(ring.keys):
            raise ValueError("there is no such version yet")
        ring.keys = {number: key for number, key in ring.keys.items() if number >= version}

    def _ring(self, name: str) -> _Ring:
        self.outage.check()
        ring = self._rings.get(name)
        if ring is None:
            raise KeyMissing
        return ring

    def _aead(self, name: str, version: int, context: bytes) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=context).derive(self._ring(name).keys[version]))
