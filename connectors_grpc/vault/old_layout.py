"""The old layout in a Vault: `{path}/{tenant}/{integration}` on a KV mount of either version, keys `{integration}-{tenant}`.

Reads for whoever migrates or falls back on it; writes and deletes only for who rolls back or finishes. Names are others'
choice, so each is one quoted segment of a URL and nothing more.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from connectors_grpc import logs
from connectors_grpc.errors import Conflict, VaultUnavailable
from connectors_grpc.legacy import FormUnknown, ciphertexts, closed, opened, to_seal
from connectors_grpc.ports import OldRecord
from connectors_grpc.vault.adapter import Reply, malformed
from connectors_grpc.vault.client import VaultClient, unexpected

log = logs.get("vault")
_OK: Final = 200
_DONE: Final = frozenset((200, 204))
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_LOST: Final = "check-and-set parameter did not match"
_KEY: Final = re.compile(r"\w(?:[\w.-]{0,254}\w)?", re.ASCII)
"""What transit takes as a key's name."""
LONGEST: Final = 128
PAGE: Final = 1000


class OldVaultRefuses(Exception):
    """The Vault lets the token not do this, or what the path names is no KV mount; the text says what to mend."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the old layout lies, as found out: `mount` is the Vault's word, `version` 1 or 2 of its KV engine."""

    mount: str
    folder: str
    version: int
    transit: str


@dataclass(frozen=True, slots=True)
class OldVault:
    """The old layout. `locate` is the way to one."""

    client: VaultClient
    place: Place

    async def tenants(self) -> Sequence[str]:
        """Every tenant, as it was called."""
        return [name.removesuffix("/") for name in await self._list(self.place.folder) if name.endswith("/")]

    async def integrations(self, tenant: str) -> Sequence[str]:
        """The tenant's integrations, as they were called."""
        return [name for name in await self._list(f"{self.place.folder}/{_segment(tenant)}") if not name.endswith("/")]

    async def read(self, tenant: str, integration: str) -> OldRecord | None:
        """The newest document, opened; None if there is none. See ports.OldLayout.  Raises: FormUnknown."""
        stored = await self._stored(tenant, integration)
        if stored is None:
            return None
        data, version = stored
        texts = ciphertexts(data)
        plain = dict(zip(texts, await self._each(self._decrypt, tenant, integration, texts), strict=True))
        return OldRecord(opened(data, plain), version)

    async def write(self, tenant: str, integration: str, record: OldRecord) -> None:
        """Replace the very version that was read, sealed as it was.  Raises: Conflict (KV v2: another wrote meanwhile)."""
        texts = to_seal(record.document)
        sealed = dict(zip(texts, await self._each(self._encrypt, tenant, integration, texts), strict=True))
        data = closed(record.document, sealed)
        path = f"{self.place.folder}/{_segment(tenant)}/{_segment(integration)}"
        if self.place.version == 1:
            url, body = f"/v1/{self.place.mount}/{path}", dict(data)
        else:
            url, body = f"/v1/{self.place.mount}/data/{path}", {"data": data, "options": {"cas": record.version}}
        reply = await self.client.call(lambda: self.client.adapter.post(url, json=body))
        if reply.status == _BAD_REQUEST and _LOST in reply.errors():
            raise Conflict
        _check(reply, _DONE, "write the old records")

    async def delete(self, tenant: str, integration: str, record: OldRecord, *, destroy: bool) -> None:
        """Delete the document if it is still what was read: of KV v2 every version, to be undeleted unless `destroy`.

        Raises: Conflict (another wrote meanwhile), FormUnknown.
        """
        if await self.read(tenant, integration) != record:
            raise Conflict
        await self._delete(f"{self.place.folder}/{_segment(tenant)}/{_segment(integration)}", record, destroy=destroy)

    async def _delete(self, path: str, record: OldRecord, *, destroy: bool) -> None:
        root, adapter = f"/v1/{self.place.mount}", self.client.adapter
        if self.place.version == 1:
            url = f"{root}/{path}"
        elif destroy:
            url = f"{root}/metadata/{path}"
        else:
            # By their numbers, so that a version that is written this very moment stays.
            versions = {"versions": list(range(1, record.version + 1))}
            reply = await self.client.call(lambda: adapter.post(f"{root}/delete/{path}", json=versions))
            _check(reply, _DONE, "delete the old records")
            return
        _check(await self.client.call(lambda: adapter.delete(url)), _DONE, "delete the old records")

    async def delete_key(self, name: str) -> None:
        """Delete an old key, if there is one of that name."""
        if not _KEY.fullmatch(name):
            return
        url, adapter = f"/v1/{self.place.transit}/keys/{quote(name, safe='')}", self.client.adapter
        reply = await self.client.call(lambda: adapter.get(url))
        if reply.status == _NOT_FOUND:
            return
        _check(reply, {_OK}, "read the old keys")
        if reply.field("data", "derived") is not False:
            return  # a key of the new layout, or not one that ever opened an old record
        reply = await self.client.call(lambda: adapter.post(f"{url}/config", json={"deletion_allowed": True}))
        _check(reply, _DONE, "allow the deletion of the old keys")
        _check(await self.client.call(lambda: adapter.delete(url)), _DONE, "delete the old keys")

    async def _stored(self, tenant: str, integration: str) -> tuple[Mapping[str, Any], int] | None:
        path = f"{self.place.folder}/{_segment(tenant)}/{_segment(integration)}"
        inner = "" if self.place.version == 1 else "data/"
        reply = await self.client.call(lambda: self.client.adapter.get(f"/v1/{self.place.mount}/{inner}{path}"))
        if reply.status == _NOT_FOUND:
            return None
        _check(reply, {_OK}, "read the old records")
        data = reply.field("data") if self.place.version == 1 else reply.field("data", "data")
        version = 0 if self.place.version == 1 else reply.field("data", "metadata", "version")
        if not isinstance(data, dict) or not isinstance(version, int):
            raise malformed(reply)
        return data, version

    async def _each(
        self, step: Callable[[str, str], Awaitable[str]], tenant: str, integration: str, texts: Iterable[str]
    ) -> Sequence[str]:
        key = key_name(tenant, integration)
        return await asyncio.gather(*(step(key, text) for text in texts))

    async def _decrypt(self, key: str, ciphertext: str) -> str:
        reply = await self._transit("decrypt", key, {"ciphertext": ciphertext})
        try:
            return base64.b64decode(reply.text("data", "plaintext"), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise FormUnknown("a ciphertext does not open to text") from None

    async def _encrypt(self, key: str, text: str) -> str:
        reply = await self._transit("encrypt", key, {"plaintext": base64.b64encode(text.encode()).decode()})
        return reply.text("data", "ciphertext")

    async def _transit(self, step: str, key: str, body: Mapping[str, str]) -> Reply:
        if not _KEY.fullmatch(key):
            raise FormUnknown("a ciphertext is there, but transit can have no key of that name")
        url = f"/v1/{self.place.transit}/{step}/{quote(key, safe='')}"
        reply = await self.client.call(lambda: self.client.adapter.post(url, json=dict(body)))
        if reply.status in (_BAD_REQUEST, _NOT_FOUND):
            raise FormUnknown(f"the key {key} does not {step} it")
        _check(reply, {_OK}, f"{step} with the old keys")
        return reply

    async def _list(self, folder: str) -> Sequence[str]:
        inner = "" if self.place.version == 1 else "metadata/"
        url, names, after = f"/v1/{self.place.mount}/{inner}{folder}", list[str](), ""
        while True:
            params = {"list": "true", "limit": str(PAGE)} | ({"after": after} if after else {})
            reply = await self.client.call(partial(self.client.adapter.get, url, params=params))
            if reply.status == _NOT_FOUND:
                return names
            _check(reply, {_OK}, "list the old records")
            # OpenBao's KV v1 answers an empty page without keys.
            keys = reply.field("data", "keys") or []
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise malformed(reply)
            # HashiCorp Vault knows neither `after` nor `limit` and answers with everything.
            fresh = sorted(key for key in keys if key > after)
            names += fresh
            if len(keys) < PAGE or not fresh:
                return names
            after = fresh[-1]


class OldVaultReader:
    """`ports.OldLayout` for a server: found at the first read, as the Vault may be away when the server starts."""

    def __init__(self, client: VaultClient, path: str) -> None:
        self._client = client
        self._path = path
        self._old: OldVault | None = None

    async def read(self, tenant: str, integration: str) -> OldRecord | None:
        """See ports.OldLayout. A policy that does not allow it is logged, and nothing is handed out."""
        try:
            if self._old is None:
                self._old = await locate(self._client, self._path)
            return await self._old.read(tenant, integration)
        except OldVaultRefuses as error:
            log.error("old_layout_refused", reason=str(error))  # noqa: TRY400  (a trace has nothing to add)
            raise VaultUnavailable from None


async def locate(client: VaultClient, path: str, transit: str = "transit") -> OldVault:
    """The old layout at `path`, a mount and the folders below it.  Raises: OldVaultRefuses, VaultUnavailable."""
    segments = [_segment(each) for each in path.strip("/").split("/")]
    reply = await client.call(lambda: client.adapter.get(f"/v1/sys/internal/ui/mounts/{'/'.join(segments)}"))
    if reply.status != _OK or reply.field("data", "type") not in ("kv", "generic"):
        raise OldVaultRefuses(f"{path} is on no KV mount that the token may read: is the path right, and the policy?")
    mount = reply.text("data", "path").strip("/")
    folder = "/".join(segments)[len(mount) :].strip("/")
    if not folder:
        raise OldVaultRefuses(f"{path} is a whole mount: the old records' folder is wanted, as in secret/tenants.")
    options = reply.field("data", "options")
    version = 2 if isinstance(options, dict) and str(options.get("version")) == "2" else 1
    return OldVault(client, Place(mount, folder, version, transit.strip("/")))


def key_name(tenant: str, integration: str) -> str:
    """The old key of one credential."""
    return f"{integration}-{tenant}"


def _segment(name: str) -> str:
    """A name as one segment of a URL.  Raises: FormUnknown."""
    if not name or len(name) > LONGEST or not name.isprintable() or name in (".", "..") or "/" in name:
        raise FormUnknown("a name of 1 to 128 printable characters is wanted")
    return quote(name, safe="")


def _check(reply: Reply, good: Iterable[int], what: str) -> None:
    """Raises: OldVaultRefuses, VaultUnavailable."""
    if reply.status in good:
        return
    if reply.status == _FORBIDDEN:
        raise OldVaultRefuses(f"The token may not {what}: `connectors migrate policy` prints what it needs.")
    raise unexpected(reply)


__all__ = ["OldVault", "OldVaultReader", "OldVaultRefuses", "Place", "key_name", "locate"]
