"""`Documents` on a KV v2 mount, of OpenBao or HashiCorp Vault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from connectors_grpc.errors import Conflict
from connectors_grpc.grammar import SEGMENT, check_cas, check_data, check_folder, check_limit, check_path
from connectors_grpc.ports import Document, DocumentPage, Json
from connectors_grpc.vault.adapter import Reply, malformed
from connectors_grpc.vault.client import VaultClient, unexpected
from connectors_grpc.vault.packing import pack, unpack

_OK: Final = 200
_DONE: Final = frozenset((200, 204))
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_LOST: Final = "check-and-set parameter did not match"


class VaultDocuments:
    """Documents under one mount. Names that are not of our grammar were put there by others, and are not listed."""

    def __init__(self, client: VaultClient, mount: str = "secret") -> None:
        self._client = client
        self._mount = check_folder(mount)

    async def read(self, path: str) -> Document | None:
        """See ports.Documents."""
        check_path(path)
        kv = self._client.kv
        reply = await self._client.call(
            lambda: kv.read_secret_version(path, mount_point=self._mount, raise_on_deleted_version=False)
        )
        if reply.status == _NOT_FOUND:
            _check_nothing(reply)
            return None
        return _document(reply)

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        """See ports.Documents.  Raises: also ValueError, for data that would not come back as it went in."""
        check_path(path)
        check_data(data)
        check_cas(cas)
        kv, stored = self._client.kv, pack(data)
        reply = await self._client.call(
            lambda: kv.create_or_update_secret(path, stored, cas=cas, mount_point=self._mount)
        )
        if reply.status == _BAD_REQUEST and _LOST in reply.errors():
            raise Conflict
        if reply.status != _OK:
            raise unexpected(reply)
        return _version(reply, reply.field("data", "version"))

    async def replace(self, path: str, data: Json, *, cas: int) -> int:
        """See ports.Documents. The Vault drops what is above `max_versions` as it writes."""
        check_path(path)
        kv = self._client.kv
        reply = await self._client.call(lambda: kv.update_metadata(path, max_versions=1, mount_point=self._mount))
        if reply.status not in _DONE:
            raise unexpected(reply)
        return await self.write(path, data, cas=cas)

    async def purge(self, path: str) -> None:
        """See ports.Documents."""
        check_path(path)
        kv = self._client.kv
        reply = await self._client.call(lambda: kv.delete_metadata_and_all_versions(path, mount_point=self._mount))
        if reply.status not in _DONE:
            raise unexpected(reply)

    async def list(self, folder: str, *, after: str = "", limit: int = 1000) -> DocumentPage:
        """See ports.Documents."""
        check_folder(folder)
        check_limit(limit)
        names: list[str] = []
        cursor = after
        # Sub-folders and foreign names count in the Vault's pages and not in ours, so a page may take several.
        while True:
            wanted = limit + 1 - len(names)
            found = await self._keys(folder, cursor, wanted)
            # HashiCorp Vault knows neither `after` nor `limit` and answers with everything.
            fresh = sorted(key for key in found if key > cursor)
            names += (key for key in fresh if SEGMENT.fullmatch(key))
            if len(names) > limit or len(found) < wanted or not fresh:
                return DocumentPage(tuple(names[:limit]), len(names) > limit)
            cursor = fresh[-1]

    async def _keys(self, folder: str, after: str, limit: int) -> Sequence[str]:
        # hvac's list_secrets takes no parameters, so this goes to the adapter under it.
        params = {"list": "true", "limit": str(limit)} | ({"after": after} if after else {})
        url = f"/v1/{self._mount}/metadata/{folder}"
        reply = await self._client.call(lambda: self._client.adapter.get(url, params=params))
        if reply.status == _NOT_FOUND:
            _check_nothing(reply)
            return ()
        if reply.status != _OK:
            raise unexpected(reply)
        keys = reply.field("data", "keys")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise malformed(reply)
        found: Sequence[str] = keys
        return found


def _check_nothing(reply: Reply) -> None:
    """A 404 that says that nothing is there: it has no words. With words, or as something else, the mount is wrong.

    A deleted version answers 404 with its metadata.  Raises: VaultUnavailable.
    """
    if reply.field("errors") != [] and not isinstance(reply.field("data", "metadata"), dict):
        raise unexpected(reply)


def _document(reply: Reply) -> Document:
    if reply.status != _OK:
        raise unexpected(reply)
    content: Any = reply.field("data")
    data = content.get("data") if isinstance(content, dict) else None
    metadata = content.get("metadata") if isinstance(content, dict) else None
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        raise malformed(reply)
    try:
        return Document(unpack(data), _version(reply, metadata.get("version")))
    except ValueError:
        raise malformed(reply) from None


def _version(reply: Reply, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise malformed(reply)
    return value
