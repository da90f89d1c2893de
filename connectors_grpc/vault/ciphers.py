"""`Ciphers` on a transit mount, of OpenBao or HashiCorp Vault."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from connectors_grpc.errors import KeyMissing, Undecipherable
from connectors_grpc.grammar import (
    MAX_PLAINTEXT,
    check_batch,
    check_context,
    check_folder,
    check_name,
    check_sealing,
    sealed_version,
)
from connectors_grpc.ports import DataKey, KeyVersions, Sealed
from connectors_grpc.vault.adapter import Reply, malformed
from connectors_grpc.vault.client import VaultClient, unexpected

_OK: Final = 200
_DONE: Final = frozenset((200, 204))
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_PREFIX: Final = "vault:v"
_MAX_CIPHERTEXT: Final = MAX_PLAINTEXT * 2
_KEY_TYPE: Final = "aes256-gcm96"


class VaultCiphers:
    """Keys under one mount. All are derived, so that a context, and not associated data, binds: rewrapping keeps it."""

    def __init__(self, client: VaultClient, mount: str = "transit") -> None:
        self._client = client
        self._mount = check_folder(mount)

    async def create_key(self, name: str) -> None:
        """See ports.Ciphers. On the platform's mount an operator made the key, and we may only see it there."""
        check_name(name)
        transit = self._client.transit
        reply = await self._client.call(
            lambda: transit.create_key(name, derived=True, key_type=_KEY_TYPE, mount_point=self._mount)
        )
        if reply.status == _FORBIDDEN and await self._exists(name):
            return
        if reply.status not in _DONE:
            raise unexpected(reply)

    async def encrypt(self, name: str, context: bytes, plaintext: bytes) -> str:
        """See ports.Ciphers.  Raises: also ValueError, for an empty context or a plaintext above 64 KiB."""
        check_name(name)
        check_sealing(context, plaintext)
        transit = self._client.transit
        body = {"plaintext": _encode(plaintext), "context": _encode(context), "mount_point": self._mount}
        reply = await self._client.call(lambda: transit.encrypt_data(name, **body))
        if reply.status == _OK:
            ciphertext = reply.text("data", "ciphertext")
            if not ciphertext.startswith(_PREFIX):
                raise malformed(reply)
            return ciphertext
        # A missing key would have to be created, which the policy forbids: 403, as for a policy that forbids it all.
        missing = reply.status == _BAD_REQUEST and _says_missing(reply)
        if missing or (reply.status == _FORBIDDEN and not await self._exists(name)):
            raise KeyMissing
        raise unexpected(reply)

    async def decrypt(self, name: str, context: bytes, ciphertext: str) -> bytes:
        """See ports.Ciphers.  Raises: also ValueError, for an empty context."""
        check_name(name)
        check_context(context)
        if not ciphertext.startswith(_PREFIX) or len(ciphertext) > _MAX_CIPHERTEXT:
            raise Undecipherable
        transit = self._client.transit
        body = {"ciphertext": ciphertext, "context": _encode(context), "mount_point": self._mount}
        reply = await self._client.call(lambda: transit.decrypt_data(name, **body))
        if reply.status == _OK:
            return _decode(reply)
        if reply.status == _BAD_REQUEST and reply.errors():
            raise KeyMissing if _says_missing(reply) else Undecipherable
        raise unexpected(reply)

    async def data_key(self, name: str, context: bytes) -> DataKey:
        """See ports.Ciphers.  Raises: also ValueError, for an empty context."""
        check_name(name)
        check_context(context)
        transit = self._client.transit
        body = {"context": _encode(context), "mount_point": self._mount}
        reply = await self._client.call(lambda: transit.generate_data_key(name, key_type="plaintext", **body))
        if reply.status == _OK:
            wrapped = reply.text("data", "ciphertext")
            if not wrapped.startswith(_PREFIX):
                raise malformed(reply)
            return DataKey(_decode(reply), wrapped)
        missing = reply.status in (_BAD_REQUEST, _NOT_FOUND, _FORBIDDEN)
        if missing and (_says_missing(reply) or not await self._exists(name)):
            raise KeyMissing
        raise unexpected(reply)

    async def shred_key(self, name: str) -> None:
        """See ports.Ciphers. Two that shred at once both succeed."""
        check_name(name)
        transit = self._client.transit
        reply = await self._client.call(
            lambda: transit.update_key_configuration(name, deletion_allowed=True, mount_point=self._mount)
        )
        if reply.status in _DONE:
            reply = await self._client.call(lambda: transit.delete_key(name, mount_point=self._mount))
        if reply.status not in _DONE and await self._exists(name):
            raise unexpected(reply)

    async def key_versions(self, name: str) -> KeyVersions:
        """See ports.Ciphers."""
        check_name(name)
        reply = await self._read(name)
        if reply is None:
            raise KeyMissing
        latest, readable = (reply.field("data", field) for field in ("latest_version", "min_decryption_version"))
        if not (_is_number(latest) and _is_number(readable) and latest >= 1):
            raise malformed(reply)
        return KeyVersions(latest, max(readable, 1))

    async def rotate(self, name: str) -> None:
        """See ports.Ciphers."""
        check_name(name)
        transit = self._client.transit
        reply = await self._client.call(lambda: transit.rotate_key(name, mount_point=self._mount))
        if reply.status not in _DONE:
            raise await self._missing_or(reply, name)

    async def rewrap(self, name: str, items: Sequence[Sealed]) -> Sequence[str | None]:
        """See ports.Ciphers."""
        check_name(name)
        check_batch(items)
        batch = [{"ciphertext": _sendable(item.ciphertext), "context": _encode(item.context)} for item in items]
        transit = self._client.transit
        reply = await self._client.call(
            lambda: transit.rewrap_data(name, "", batch_input=batch, mount_point=self._mount)
        )
        # 200 although items failed; where all did, HashiCorp Vault may say 400, with the same list.
        results = reply.field("data", "batch_results") if reply.status in (_OK, _BAD_REQUEST) else None
        if results is None:
            raise await self._missing_or(reply, name)
        if not isinstance(results, list) or len(results) != len(items):
            raise malformed(reply)
        return [_rewrapped(reply, result) for result in results]

    async def retire(self, name: str, version: int) -> None:
        """See ports.Ciphers."""
        versions = await self.key_versions(name)
        if version > versions.latest:
            raise ValueError("there is no such version yet")
        version = max(version, versions.readable)
        # Not hvac's own method: it takes two versions that are equal, which is what trimming needs, for a mistake.
        wanted = {"min_decryption_version": version, "min_encryption_version": version}
        url = f"/v1/{self._mount}/keys/{name}/config"
        reply = await self._client.call(lambda: self._client.adapter.post(url, json=wanted))
        if reply.status in _DONE:
            transit = self._client.transit
            reply = await self._client.call(lambda: transit.trim_key(name, version, mount_point=self._mount))
        if reply.status not in _DONE:
            raise await self._missing_or(reply, name)

    async def _missing_or(self, reply: Reply, name: str) -> Exception:
        """Why it was refused: there is no such key, or nothing that we understand."""
        return unexpected(reply) if await self._exists(name) else KeyMissing()

    async def _exists(self, name: str) -> bool:
        return await self._read(name) is not None

    async def _read(self, name: str) -> Reply | None:
        transit = self._client.transit
        reply = await self._client.call(lambda: transit.read_key(name, mount_point=self._mount))
        if reply.status == _NOT_FOUND and reply.field("errors") == []:
            return None
        if reply.status != _OK:
            raise unexpected(reply)
        return reply


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sendable(ciphertext: str) -> str:
    """As it stands, if it can be a ciphertext at all; else something that surely opens for nobody."""
    return ciphertext if sealed_version(ciphertext) and ciphertext.isascii() else f"{_PREFIX}1:"


def _rewrapped(reply: Reply, result: object) -> str | None:
    """One item's new ciphertext; None if it says that it failed.  Raises: VaultUnavailable for what says neither."""
    if not isinstance(result, dict):
        raise malformed(reply)
    ciphertext = result.get("ciphertext")
    if isinstance(ciphertext, str) and ciphertext.startswith(_PREFIX):
        return ciphertext
    if not result.get("error"):
        raise malformed(reply)
    return None


def _says_missing(reply: Reply) -> bool:
    return "encryption key not found" in reply.errors()


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _decode(reply: Reply) -> bytes:
    try:
        return base64.b64decode(reply.text("data", "plaintext"), validate=True)
    except (binascii.Error, ValueError):
        raise malformed(reply) from None
