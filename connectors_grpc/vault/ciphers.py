"""`Ciphers` on a transit mount, of OpenBao or HashiCorp Vault."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from connectors_grpc.errors import KeyMissing, Undecipherable
from connectors_grpc.grammar import MAX_PLAINTEXT, check_context, check_folder, check_name, check_sealing
from connectors_grpc.ports import DataKey
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

    async def _exists(self, name: str) -> bool:
        transit = self._client.transit
        reply = await self._client.call(lambda: transit.read_key(name, mount_point=self._mount))
        if reply.status == _NOT_FOUND and reply.field("errors") == []:
            return False
        if reply.status != _OK:
            raise unexpected(reply)
        return True


def _says_missing(reply: Reply) -> bool:
    return "encryption key not found" in reply.errors()


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _decode(reply: Reply) -> bytes:
    try:
        return base64.b64decode(reply.text("data", "plaintext"), validate=True)
    except (binascii.Error, ValueError):
        raise malformed(reply) from None
